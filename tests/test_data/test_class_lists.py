"""Classes of one's own: files that say what a mask's values mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3pt_mm.cli import dense_knn
from s3pt_mm.common.errors import DataError
from s3pt_mm.data.class_lists import class_set, load_class_list
from s3pt_mm.data.label_maps import LabelError
from s3pt_mm.data.labelled_images import LabelledImages

CLASSES = """
name: street
classes:
  - {name: sky, ids: [0, 7], colour: [128, 128, 128]}
  - road
  - name: car
ignore: [11, 255]
"""


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Two images in subfolders, masks of 0, 1, 7 and 11, and the class list."""
    values = np.repeat(np.array([[0, 1, 7, 11]], np.uint8), 16, 0).repeat(8, 1)
    for name in ('a/one', 'b/two'):
        for folder, content, end in (
            ('images', np.full((16, 32, 3), 9, np.uint8), '.jpg'),
            ('masks', values, '.png'),
        ):
            path = tmp_path / folder / f'{name}{end}'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    (tmp_path / 'street.yaml').write_text(CLASSES)
    return tmp_path


def test_a_file_of_classes(street: Path) -> None:
    found = load_class_list(street / 'street.yaml')
    assert found.name == 'street' and found.classes == ('sky', 'road', 'car')
    assert found.palette[0] == (128, 128, 128) and len(set(found.palette)) == 3
    assert found.raw_to_label == {0: 0, 7: 0, 1: 1, 2: 2, 11: 255, 255: 255}


def test_a_plain_list_of_names_is_enough(tmp_path: Path) -> None:
    (tmp_path / 'classes.json').write_text('["sky", "road"]')
    found = class_set(tmp_path / 'classes.json')
    assert found.name == 'classes' and found.raw_to_label == {0: 0, 1: 1, 255: 255}


@pytest.mark.parametrize(
    'text, message',
    [
        ('classes: [a, a]', "class 1 is called 'a'"),
        ('classes: [{name: a, ids: [1]}, b]', 'the value 1 belongs to a and to b'),
        ('classes: [a]\nignore: 0', 'the value 0 belongs to ignore and to a'),
        ('classes: [{name: a, ids: 256}]', 'a has 256'),
        ('classes: [{name: a, color: [0, 0, 0]}]', "class 0 has 'color', which is none of"),
        ('classes: [{name: a, colour: red}]', "colour 'red' of a"),
        ('classes: []', "'classes' must list 1 to 254"),
        ('sky', 'holds a str'),
        ('classes: [', 'is no class list'),
        ('!!python/object/apply:os.system ["false"]', 'is no class list'),
    ],
)
def test_impossible_lists_name_file_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(DataError) as error:
        load_class_list(path)
    assert message in str(error.value) and str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_name_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(ValueError, match="no class set 'camvid11': choose nuimages5, .*cityscapes"):
        class_set('camvid11')
    with pytest.raises(DataError, match=r'absent.yaml: cannot be read \(No such file'):
        class_set('absent.yaml')


def test_folders_of_images_and_masks(street: Path) -> None:
    images = LabelledImages.build(
        images=street / 'images',
        masks=street / 'masks',
        class_set=str(street / 'street.yaml'),
        image_size=(16, 32),
    )
    assert len(images) == 2
    assert images[1].label_map[0, ::8].tolist() == [0, 1, 0, 255]


def test_a_value_that_no_class_claims_names_file_value_and_classes(street: Path) -> None:
    (street / 'street.yaml').write_text('[sky, road]')
    source = f'{street}/images={street}/masks'
    images = LabelledImages.from_argument(
        source, 'val', class_set=street / 'street.yaml', image_size=(16, 32)
    )
    with pytest.raises(LabelError, match=r'masks/a/one.png holds the label 7 .*sky, road'):
        images[0]


def test_a_list_of_others_is_no_nuimages_list(street: Path) -> None:
    item = dict(img_path='images/a/one.jpg', seg_map_path='masks/a/one.png')
    path = street / 'list.json'
    path.write_text(json.dumps(dict(data_list=[item])))
    with pytest.raises(LabelError, match='list.json: class set nuimages13 is for lists of'):
        LabelledImages.from_nuimages(path, image_size=(16, 32))
    own = str(street / 'street.yaml')
    assert len(LabelledImages.from_nuimages(path, class_set=own, image_size=(16, 32))) == 1


def test_dense_knn_of_own_classes(street: Path, capsys) -> None:
    source = f'{street}/images={street}/masks'
    command = ['random', '--arch', 'vitt', '--train', source, '--val', source, '--device', 'cpu']
    command += ['--image-size', '16', '32', '--crops', '1', '-k', '2']
    with pytest.raises(SystemExit, match='error: .*name a class list'):
        dense_knn.main(command)
    with pytest.raises(SystemExit, match="error: There is no class set 'camvid11'"):
        dense_knn.main([*command, '--class-set', 'camvid11'])
    dense_knn.main([*command, '--class-set', str(street / 'street.yaml')])
    printed = capsys.readouterr().out
    assert '| sky' in printed and '| car' in printed


def test_segmenter_reads_the_same_folders(street: Path) -> None:
    from mmseg.registry import DATASETS

    import s3pt_mm.segmentation  # noqa: F401
    from s3pt_mm.data.class_mappings import same_classes

    settings = dict(
        type='FolderSegDataset',
        data_root=str(street),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        class_set=str(street / 'street.yaml'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmseg.LoadSegmentationLabels')],
    )
    dataset = DATASETS.build(settings)
    assert len(dataset) == 2 and dataset.metainfo['classes'] == ('sky', 'road', 'car')
    assert dataset[0]['gt_seg_map'][0, ::8].tolist() == [0, 1, 0, 255]
    (street / 'masks/b/two.png').unlink()
    with pytest.raises(LabelError, match='two.png of image .*two.jpg is missing'):
        dataset[1]
    assert same_classes(settings['class_set']).classes == ('sky', 'road', 'car')
