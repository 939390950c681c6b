"""Class lists against the devkit's numbering and the hosts' lists."""

import numpy as np
import pytest
from nuimages.utils.utils import name_to_index_mapping
from PIL import Image

from s3pt_mm.data.class_sets import (
    CITYSCAPES_19,
    CLASS_SETS,
    NUIMAGES_5,
    NUIMAGES_7,
    NUIMAGES_13,
    NUIMAGES_25,
    NUIMAGES_CATEGORIES,
    NUIMAGES_RAW_IDS,
)
from s3pt_mm.data.label_maps import LabelError, read_label_map
from s3pt_mm.probes.confusion import confusion_matrix, scores


def test_raw_ids_are_the_devkits():
    table = [dict(name=name) for name in reversed(NUIMAGES_CATEGORIES)]
    assert {**name_to_index_mapping(table), 'background': 0} == NUIMAGES_RAW_IDS


def test_detection_classes_follow_nuscenes():
    from nuscenes.eval.detection.utils import category_to_detection_name

    names = {'traffic_cone': 'traffic cone', 'construction_vehicle': 'construction vehicle'}
    for category in NUIMAGES_CATEGORIES:
        # nuScenes groups the same categories, some under other names than nuImages.
        detection = category_to_detection_name(category)
        label = NUIMAGES_13.raw_to_label[NUIMAGES_RAW_IDS[category]]
        if detection is not None:
            assert NUIMAGES_13.classes[label] == names.get(detection, detection)
        elif category not in ('flat.driveable_surface', 'vehicle.ego'):
            assert label == 255, category


def test_thirteen_and_twentyfive_classes():
    assert len(NUIMAGES_13.classes) == 13 and len(NUIMAGES_25.classes) == 25
    assert NUIMAGES_13.raw_to_label[0] == NUIMAGES_13.classes.index('background')
    assert NUIMAGES_25.raw_to_label[0] == 255
    assert sorted({v for v in NUIMAGES_13.raw_to_label.values() if v != 255}) == list(range(13))


@pytest.mark.parametrize(('merging', 'count'), [(NUIMAGES_5, 5), (NUIMAGES_7, 7)])
def test_few_classes_merge_the_thirteen(merging, count):
    assert len(merging.classes) == count
    merged: dict[int, set[int]] = {}
    for raw, fine in NUIMAGES_13.raw_to_label.items():
        merged.setdefault(fine, set()).add(merging.raw_to_label[raw])
    assert all(len(coarse) == 1 for coarse in merged.values())  # no class is split
    ignored = {NUIMAGES_13.classes[f] for f, c in merged.items() if f != 255 and c == {255}}
    assert ignored == {'ego vehicle'} and merged[255] == {255}


def test_cityscapes_equals_mmseg():
    from mmseg.datasets import CityscapesDataset

    assert CITYSCAPES_19.classes == CityscapesDataset.METAINFO['classes']
    assert [list(c) for c in CITYSCAPES_19.palette] == CityscapesDataset.METAINFO['palette']


@pytest.mark.parametrize('class_set', CLASS_SETS.values(), ids=lambda c: c.name)
def test_colours_are_all_different(class_set):
    assert len(set(class_set.palette)) == len(class_set.classes)


def test_scores_by_hand():
    label = np.array([0, 0, 0, 1, 1, 255])
    confusion = confusion_matrix(np.array([0, 0, 1, 1, 0, 2]), label, num_classes=3)
    assert confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    result = scores(confusion, 'abc')
    assert result['IoU']['a'] == 50 and result['aAcc'] == 60
    assert result['IoU']['b'] == pytest.approx(100 / 3) and np.isnan(result['IoU']['c'])
    assert result['mIoU'] == pytest.approx((50 + 100 / 3) / 2)


def test_scores_equal_mmseg():
    import torch
    from mmseg.evaluation import IoUMetric

    generator = np.random.default_rng(0)
    prediction, label = generator.integers(0, 5, (2, 40, 40))
    label[:4] = 255
    areas = IoUMetric.intersect_and_union(
        torch.from_numpy(prediction), torch.from_numpy(label), 6, 255
    )
    theirs = IoUMetric.total_area_to_metrics(*areas)
    ours = scores(confusion_matrix(prediction, label, num_classes=6), 'abcdef')
    np.testing.assert_allclose(list(ours['IoU'].values()), 100 * theirs['IoU'], rtol=1e-5)
    np.testing.assert_allclose(ours['mAcc'], 100 * np.nanmean(theirs['Acc']), rtol=1e-5)


@pytest.mark.parametrize(
    'raw, message',
    [
        (np.full((4, 6), 77, np.uint8), r'bad.png.*77.*out of range'),
        (np.zeros((5, 6), np.uint8), r'bad.png is 6 x 5 pixels, its image photo.jpg 6 x 4'),
        (np.zeros((4, 6, 3), np.uint8), r'bad.png holds the colour \[0, 0, 0\]'),
        (None, r'bad.png of image photo.jpg is missing'),
    ],
)
def test_bad_masks_name_file_and_value(tmp_path, raw, message):
    path = tmp_path / 'bad.png'
    if raw is not None:
        Image.fromarray(raw).save(path)
    with pytest.raises(LabelError, match=message):
        read_label_map(path, NUIMAGES_13, image_size=(4, 6), img_path='photo.jpg')
