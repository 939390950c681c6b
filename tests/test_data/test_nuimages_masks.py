"""Masks against the devkit, pixel for pixel; lists, splits, interruption and bad tables."""

import json

import numpy as np
import pytest
from nuimages import NuImages
from PIL import Image

from s3pt_mm.common.errors import DataError
from s3pt_mm.data import nuimages_masks
from s3pt_mm.data.class_sets import NUIMAGES_13
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.data.nuimages_masks import create_nuimages


def items(path):
    return json.loads(path.read_text())['data_list']


def edit(path, change):
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_equal_to_the_devkit_pixel_for_pixel(nuimages_root):
    lists = create_nuimages(nuimages_root, progress=False)
    seen = set()
    for version, count in (('v1.0-train', 5), ('v1.0-val', 3)):
        devkit = NuImages(version, str(nuimages_root), verbose=False)
        entries = items(lists[version.rsplit('-')[-1]])
        assert len(entries) == count  # the sweep image has no mask
        for entry in entries:
            expected, _ = devkit.get_segmentation(entry['token'])
            with Image.open(nuimages_root / entry['seg_map_path']) as file:
                assert file.mode == 'P'
                got = np.asarray(file)
            np.testing.assert_array_equal(got, expected)
            seen |= set(np.unique(got).tolist())
    assert {0, 24, 31} <= seen and len(seen) > 10


def test_categories_go_by_name_not_by_position(nuimages_root):
    before = create_nuimages(nuimages_root, progress=False, out_dir=nuimages_root / 'a')
    table = nuimages_root / 'v1.0-val' / 'category.json'
    edit(table, lambda rows: rows.reverse())
    after = create_nuimages(nuimages_root, progress=False, out_dir=nuimages_root / 'b')
    for entry in items(before['val']):
        pixels = [
            np.asarray(Image.open(nuimages_root / folder / entry['seg_map_path']))
            for folder in 'ab'
        ]
        np.testing.assert_array_equal(*pixels)
    assert items(after['val']) == items(before['val'])


def test_parallel_equals_serial_and_a_rerun_keeps_files(nuimages_root, monkeypatch):
    serial = create_nuimages(nuimages_root, progress=False, out_dir=nuimages_root / 'a')
    parallel = create_nuimages(
        nuimages_root, progress=False, out_dir=nuimages_root / 'b', workers=2
    )
    for one, two in zip(items(serial['train']), items(parallel['train']), strict=True):
        files = [
            nuimages_root / 'a' / one['seg_map_path'],
            nuimages_root / 'b' / two['seg_map_path'],
        ]
        assert files[0].read_bytes() == files[1].read_bytes()
    # Interrupted after one image: only what is missing is drawn again, and no half file is left.
    (nuimages_root / 'a' / items(serial['train'])[2]['seg_map_path']).unlink()
    drawn = []
    original = nuimages_masks.draw
    monkeypatch.setattr(nuimages_masks, 'draw', lambda job: drawn.append(job) or original(job))
    create_nuimages(nuimages_root, progress=False, out_dir=nuimages_root / 'a')
    assert len(drawn) == 1
    create_nuimages(nuimages_root, progress=False, out_dir=nuimages_root / 'a', overwrite=True)
    assert len(drawn) == 1 + 8


def test_a_failed_save_leaves_no_mask(nuimages_root, monkeypatch):
    def full(self, stream, format):
        stream.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(OSError, match='No space'):
        create_nuimages(nuimages_root, progress=False)
    assert not [p for p in (nuimages_root / 'semantic_masks').rglob('*') if p.is_file()]


def test_random_split_is_seeded_disjoint_and_complete(nuimages_root):
    def tokens(seed):
        lists = create_nuimages(nuimages_root, progress=False, random_split=0.8, seed=seed)
        return [{i['token'] for i in items(lists[f'random_{s}'])} for s in ('train', 'val')]

    train, val = tokens(0)
    assert len(train) == 6 and len(val) == 2 and not train & val
    assert tokens(0) == [train, val]
    assert any(tokens(seed) != [train, val] for seed in (1, 2, 3))
    with pytest.raises(ValueError, match='80'):
        create_nuimages(nuimages_root, progress=False, random_split=80)


def test_the_list_reads_as_labelled_images(nuimages_root):
    lists = create_nuimages(nuimages_root, progress=False)
    images = LabelledImages.from_nuimages(lists['val'], image_size=(32, 64))
    assert len(images) == 3
    labels = images[0].label_map
    assert labels.shape == (36, 64)
    assert labels[labels != 255].max() < len(NUIMAGES_13.classes)


@pytest.mark.parametrize(
    'fault, message',
    [
        ('category', r'category.json.*movable_object.debris2'),
        ('size', r'_0.jpg.*64 x 36 pixels.*mask of 64 x 30'),
        ('image', r'_0.jpg.*cannot be read'),
        ('counts', r'_0.jpg.*unreadable mask'),
        ('table', r'object_ann.json.*cannot be read.*v1.0-train'),
    ],
)
def test_bad_input_is_named(nuimages_root, fault, message):
    tables = nuimages_root / 'v1.0-train'
    first = 'v1.0-train0'

    def masks(rows):
        return [r['mask'] for r in rows if r['sample_data_token'] == first and r['mask']]

    if fault == 'category':
        edit(tables / 'category.json', lambda rows: rows[0].update(name='movable_object.debris2'))
    elif fault == 'size':
        edit(tables / 'object_ann.json', lambda rows: masks(rows)[0].update(size=[30, 64]))
    elif fault == 'counts':
        edit(tables / 'object_ann.json', lambda rows: masks(rows)[0].update(counts='%%%'))
    elif fault == 'image':
        (nuimages_root / 'samples/CAM_FRONT/v1.0-train_0.jpg').unlink()
    else:
        (tables / 'object_ann.json').unlink()
    with pytest.raises(DataError, match=message):
        create_nuimages(nuimages_root, progress=False)


@pytest.mark.parametrize(
    ('table', 'garble'),
    [
        ('category', lambda rows: rows[0].pop('name')),
        ('category', lambda rows: rows.append(None)),
        ('surface_ann', lambda rows: rows[0].update(category_token=[1])),
        ('object_ann', lambda rows: rows[0].pop('token')),
        ('object_ann', lambda rows: rows[0].update(mask='x')),
        ('object_ann', lambda rows: rows[0].update(mask=dict(size=[None], counts=5))),
        ('sample_data', lambda rows: rows[0].pop('is_key_frame')),
        ('sample_data', lambda rows: rows[0].update(is_key_frame=True, filename=5)),
    ],
)
def test_garbled_rows_name_the_file(nuimages_root, tmp_path, table, garble):
    path = nuimages_root / 'v1.0-train' / f'{table}.json'
    rows = json.loads(path.read_text())
    garble(rows)
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match='lacks or garbles a field') as error:
        create_nuimages(nuimages_root, out_dir=tmp_path / 'out', progress=False)
    assert error.value.path == str(path) or error.value.path.endswith('.jpg')
