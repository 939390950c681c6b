"""The nuImages data set and the checked loading of labels."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

import s3pt_mm.segmentation  # noqa: F401
from s3pt_mm.common.errors import DataError
from s3pt_mm.data.class_sets import NUIMAGES_13, NUIMAGES_25, NUIMAGES_RAW_IDS
from s3pt_mm.data.label_maps import LabelError
from s3pt_mm.data.transforms import LoadWholeImage
from tests.damaged_jpegs import BEYOND, DAMAGE, write_noise
from tests.nuscenes_tables import street

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadSegmentationLabels')]


def build(root, ann_file='nuimages_train.json', **settings):
    return DATASETS.build(
        dict(
            type='NuImagesDataset',
            data_root=str(root),
            ann_file=ann_file,
            pipeline=PIPELINE,
            **settings,
        )
    )


@pytest.mark.parametrize('class_set', [NUIMAGES_13, NUIMAGES_25], ids=lambda c: c.name)
def test_labels_follow_the_class_set(nuimages_root, class_set):
    dataset = build(nuimages_root, class_set=class_set.name)
    assert dataset.metainfo['classes'] == class_set.classes and len(dataset) == 4
    assert dataset.metainfo['palette'][3] == list(class_set.palette[3])
    for item in dataset:
        with Image.open(item['seg_map_path']) as file:
            raw = np.asarray(file)
        expected = np.vectorize(class_set.raw_to_label.__getitem__)(raw)
        np.testing.assert_array_equal(item['gt_seg_map'], expected)
        assert item['img'].shape[:2] == raw.shape


def test_class_zero_is_not_lost(nuimages_root):
    item = build(nuimages_root)[0]
    assert item['reduce_zero_label'] is False
    background = NUIMAGES_13.classes.index('background')
    with Image.open(item['seg_map_path']) as file:
        raw = np.asarray(file)
    assert (item['gt_seg_map'] == background).sum() == (raw == 0).sum() > 0


def test_random_split_and_masks_elsewhere(nuimages_root, tmp_path):
    assert len(build(nuimages_root, 'nuimages_random_train.json')) == 3
    shutil.copytree(nuimages_root / 'semantic_masks', tmp_path / 'semantic_masks')
    dataset = build(nuimages_root, data_prefix=dict(img_path='', seg_map_path=str(tmp_path)))
    assert dataset[0]['seg_map_path'].startswith(str(tmp_path))


def test_no_list_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match='s3pt-data nuimages --root'):
        build(tmp_path)
    with pytest.raises(ValueError, match='nuimages14'):
        build(tmp_path, class_set='nuimages14')


@pytest.mark.parametrize(
    'raw, message',
    [
        (np.full((36, 64), 25, np.uint8), 'mask.png holds the label 25.*nuimages13 knows'),
        (np.zeros((18, 32), np.uint8), 'mask.png is 32 x 18 pixels, its image .*jpg 64 x 36'),
        (None, 'mask.png of image .*jpg is missing'),
    ],
)
def test_bad_masks_name_file_and_values(nuimages_root, tmp_path, raw, message):
    item = build(nuimages_root).get_data_info(0)
    item['seg_map_path'] = str(tmp_path / 'mask.png')
    if raw is not None:
        Image.fromarray(raw).save(item['seg_map_path'])
    item = LoadImageFromFile()(item)
    with pytest.raises(LabelError, match=message):
        TRANSFORMS.build(PIPELINE[1])(item)


@pytest.mark.parametrize('content', [b'', b'no image', 0.5])
def test_a_mask_that_is_no_image_is_named(nuimages_root, content):
    dataset = build(nuimages_root)
    path = Path(dataset.get_data_info(0)['seg_map_path'])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == 0.5 else content)
    try:
        with pytest.raises(LabelError, match=str(path)):
            dataset[0]
    finally:
        path.write_bytes(whole)  # the folder is shared


@pytest.mark.parametrize('damage', DAMAGE | BEYOND)
def test_a_damaged_image_is_named_in_any_data_set_of_mmseg(tmp_path, damage):
    """mmseg's own, too: OpenCV paints what is missing, or says that a buffer is empty."""
    path = write_noise(tmp_path / 'img' / 'a_leftImg8bit.jpg', 160, 90)
    whole = path.read_bytes()
    init_default_scope('mmseg')
    dataset = DATASETS.build(
        dict(
            type='CityscapesDataset',
            data_root=str(tmp_path),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            img_suffix='_leftImg8bit.jpg',
            pipeline=[dict(type='LoadImageFromFile', color_type='color_ignore_orientation')],
        )
    )
    expected = cv2.imread(str(path))
    assert np.array_equal(dataset[0]['img'], expected)
    assert dataset[0]['ori_shape'] == expected.shape[:2]
    path.write_bytes((DAMAGE | BEYOND)[damage](whole))
    with pytest.raises(DataError, match=f'{path}: '):
        dataset[0]
    assert LoadWholeImage(ignore_empty=True)(dict(img_path=str(path))) is None
    path.unlink()
    with pytest.raises(DataError, match=f'{path}: .*No such file.*data_root'):
        dataset[0]


@pytest.mark.parametrize('options', [{}, dict(color_type='grayscale'), dict(to_float32=True)])
def test_whole_images_are_those_of_mmcv(tmp_path, options):
    path, exif = tmp_path / 'a.jpg', Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(street(0)).save(path, exif=exif)
    ours = TRANSFORMS.build(dict(type='LoadImageFromFile', **options))
    assert type(ours) is LoadWholeImage
    found, expected = (
        load(dict(img_path=str(path))) for load in (ours, LoadImageFromFile(**options))
    )
    assert found.keys() == expected.keys() and found['img_shape'] == expected['img_shape']
    assert found['img'].dtype == expected['img'].dtype
    assert np.array_equal(found['img'], expected['img'])


def test_cityscapes_labels_out_of_range(tmp_path):
    Image.fromarray(np.full((4, 4), 33, np.uint8)).save(tmp_path / 'labelIds.png')
    load = TRANSFORMS.build(PIPELINE[1])
    item = dict(
        img_path='x.png',
        seg_map_path=str(tmp_path / 'labelIds.png'),
        ori_shape=(4, 4),
        seg_fields=[],
    )
    with pytest.raises(LabelError, match='labelIds.png holds the label 33.*cityscapes19'):
        load(item)


@pytest.mark.parametrize(
    'kind, image, label',
    [
        ('ACDCSegDataset', 'a_rgb_anon.png', 'a_gt_labelTrainIds.png'),
        ('DarkZurichDataset', 'a_rgb_anon.png', 'a_gt_labelTrainIds.png'),
        (
            'FoggyCityscapesDataset',
            'a_leftImg8bit_foggy_beta_0.02.png',
            'a_gtFine_labelTrainIds.png',
        ),
        ('FoggyDrivingDataset', 'a_leftImg8bit.png', 'a_gtCoarse_labelTrainIds.png'),
        ('NightDrivingDataset', 'a_leftImg8bit.png', 'a_gtCoarse_labelTrainIds.png'),
    ],
)
def test_adverse_weather_folders_pair_image_and_label(tmp_path, kind, image, label):
    for folder, name in (('img/town', image), ('ann/town', label)):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / folder / name)
    dataset = DATASETS.build(
        dict(
            type=kind,
            data_root=str(tmp_path),
            data_prefix=dict(img_path='img', seg_map_path='ann'),
            pipeline=PIPELINE,
        )
    )
    assert len(dataset) == 1 and (dataset[0]['gt_seg_map'] == 0).all()


def test_raw_ids_fit_a_png():
    assert max(NUIMAGES_RAW_IDS.values()) < 255
