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
    assert dense_knn.main(command) == 1
    assert 'name a class list' in capsys.readouterr().err
    assert dense_knn.main([*command, '--class-set', 'camvid11']) == 1
    assert "error: There is no class set 'camvid11'" in capsys.readouterr().err
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


# ---- colour masks -------------------------------------------------------------------------------

COLOURS = """
classes:
  - {name: sky, colour: [128, 128, 128]}
  - {name: road, colour: [128, 64, 128]}
ignore: [255, [0, 0, 0]]
"""


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """One image, its mask in colours, and the class list."""
    mask = np.array([[[128, 128, 128], [128, 64, 128], [0, 0, 0]]], np.uint8).repeat(8, 0)
    for folder, pixels in (('images', np.full((8, 3, 3), 90, np.uint8)), ('masks', mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / 'one.png')
    (tmp_path / 'colours.yaml').write_text(COLOURS)
    return tmp_path


def read_colours(root: Path) -> np.ndarray:
    data = LabelledImages.from_folders(
        root / 'images', root / 'masks', class_set=root / 'colours.yaml', image_size=(16, 16)
    )
    return data[0].label_map


@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
def test_colour_masks_are_read_by_the_classes_colours(colours: Path, mode: str) -> None:
    path = colours / 'masks/one.png'
    Image.open(path).convert(mode).save(path)
    assert read_colours(colours).tolist() == [[0, 1, 255]] * 8


def test_an_unknown_colour_names_mask_colour_and_classes(colours: Path) -> None:
    pixels = np.asarray(Image.open(colours / 'masks/one.png')).copy()
    pixels[2, 1] = 1, 2, 3
    Image.fromarray(pixels).save(colours / 'masks/one.png')
    with pytest.raises(LabelError, match=r'one\.png holds the colour \[1, 2, 3\].*road \[128, 64'):
        read_colours(colours)
    (colours / 'colours.yaml').write_text(COLOURS.replace('[0, 0, 0]', '[128, 64, 128]'))
    with pytest.raises(LabelError, match='share a colour'):
        read_colours(colours)


def test_a_mask_of_another_size_names_both(street: Path, capsys) -> None:
    path = street / 'masks/a/one.png'
    Image.open(path).resize((16, 8)).save(path)
    data = LabelledImages.from_folders(
        street / 'images', street / 'masks', class_set=street / 'street.yaml', image_size=(16, 16)
    )
    with pytest.raises(
        LabelError, match=r'one\.png is 16 x 8 pixels, its image .*one\.jpg 32 x 16'
    ):
        data[0]
    source = f'{street}/images={street}/masks'
    command = ['random', '--arch', 'vitt', '--class-set', str(street / 'street.yaml')]
    command += ['--train', source, '--val', source, '--image-size', '16', '32', '--device', 'cpu']
    assert dense_knn.main(command) == 1
    printed = capsys.readouterr().err
    assert printed.startswith('error: Mask ') and '16 x 8' in printed


# ---- the probe of pre-training ------------------------------------------------------------------


def test_hook_and_linear_probe_take_own_classes(
    street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from mmengine.logging import MMLogger
    from torch import nn

    from s3pt_mm.probes import evaluation
    from s3pt_mm.probes.evaluation import evaluate_with_controls, linear_head
    from s3pt_mm.probes.knn_hook import KnnProbeHook
    from s3pt_mm.weights.frozen import FrozenVisionTransformer

    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
    backbone = FrozenVisionTransformer(arch=arch, img_size=32, patch_size=16, out_type='featmap')
    split = dict(
        images=str(street / 'images'),
        masks=str(street / 'masks'),
        class_set=str(street / 'street.yaml'),
        image_size=(32, 32),
    )
    hook = KnnProbeHook(train=split, val=split, crops=1, k=1)
    raw = FrozenVisionTransformer(arch=arch, img_size=32, patch_size=16, out_type='raw')
    model = nn.Module()
    model.teacher = nn.ModuleDict(dict(backbone=raw))
    scalars: dict[str, float] = {}
    runner = SimpleNamespace(
        model=model,
        hooks=[SimpleNamespace(), SimpleNamespace(asked_to_leave=False)],
        iter=0,
        work_dir=str(tmp_path),
        logger=MMLogger.get_instance('own'),
        visualizer=SimpleNamespace(
            add_scalar=lambda name, value, step: scalars.update({name: value})
        ),
    )
    hook.before_train(runner)
    (probed,) = json.loads((tmp_path / 'knn_probe.json').read_text())
    assert list(probed['IoU']) == ['sky', 'road', 'car'] and probed['IoU']['car'] is None
    assert scalars['knn/mIoU'] == probed['mIoU']
    # What training does not change is not evaluated again.
    evaluated: list[str] = []
    original = evaluation.evaluate
    monkeypatch.setattr(
        evaluation,
        'evaluate',
        lambda maps, *a, **k: evaluated.extend(maps) or original(maps, *a, **k),
    )
    assert str(hook.probe(runner)) == str(hook.history[0])
    assert evaluated == ['network', 'untrained, same position scale']
    del hook.history[1:]
    runner.hooks[1].asked_to_leave = True  # SIGTERM: a scheduler may not wait for a probe
    assert hook.probe(runner) is None and len(hook.history) == 1
    assert not raw._forward_pre_hooks
    images = LabelledImages.build(**split)
    linear = evaluate_with_controls(
        backbone, images, images, dict(linear=linear_head()), crops=1, memory_size=None, seed=0,
        batch_size=2,
    )['linear']  # fmt: skip
    assert list(linear['IoU']) == ['sky', 'road', 'car']
    assert set(linear['controls']) >= {'place', 'colour + place'}


@pytest.mark.parametrize(
    'text', ['', '[]', '{"metainfo": {}}', '{"metainfo": {"raw_ids": {}}, "data_list": [{}]}',
             '{"metainfo": {"raw_ids": {}}, "data_list": [{"img_path": 5, "seg_map_path": "a"}]}']
)  # fmt: skip
def test_a_garbled_list_is_named(tmp_path, text):
    (tmp_path / 'list.json').write_text(text)
    with pytest.raises(DataError, match=r'list\.json: lacks or garbles a field'):
        LabelledImages.from_nuimages(tmp_path / 'list.json', image_size=(16, 32))
