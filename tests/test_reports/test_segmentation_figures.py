"""Tables and figures of segmentation: right numbers in right cells, files that are pictures."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from s3pt_mm.data.class_sets import CITYSCAPES_19, CLASS_SETS, NUIMAGES_13
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.reports.objectwise import draw_objectwise
from s3pt_mm.reports.palette import colourise
from s3pt_mm.reports.qualitative import draw_qualitative
from s3pt_mm.reports.segmentation_results import (
    PUBLISHED_TABLE5,
    parse_runs,
    read_result,
    table5_rows,
)


@pytest.fixture
def results(tmp_path):
    """Two runs, one as a metric's file, one as a sweep."""

    def figures(shift):
        iou = {f'IoU/{n}': 10.0 + i + shift for i, n in enumerate(NUIMAGES_13.classes)}
        return dict(iou, mIoU=16.0 + shift, mAcc=1.0, aAcc=2.0)

    one, two = figures(0), figures(5)
    one['IoU/bus'] = None
    (tmp_path / 'one.json').write_text(json.dumps(one))
    (tmp_path / 'two.json').write_text(json.dumps(dict(runs=[one, two], best=two)))
    return parse_runs([f'CrIBo={tmp_path}/one.json', f'S3PT={tmp_path}/two.json'])


def test_runs_are_read(results):
    cribo, s3pt = results
    assert cribo.name == 'CrIBo' and math.isnan(cribo.iou['bus']) and cribo.miou == 16
    assert s3pt.iou['car'] == 15 and list(s3pt.iou) == list(NUIMAGES_13.classes)


def test_bad_results_are_named(tmp_path, results):
    (tmp_path / 'empty.json').write_text('{"loss": 1}')
    with pytest.raises(ValueError, match='empty.json holds no mIoU'):
        read_result('x', tmp_path / 'empty.json')
    (tmp_path / 'cut.json').write_text('{"loss": 1')
    with pytest.raises(ValueError, match='cut.json is no JSON'):
        read_result('x', tmp_path / 'cut.json')
    (tmp_path / 'list.json').write_text('[1]')
    with pytest.raises(ValueError, match='list.json holds no mIoU'):
        read_result('x', tmp_path / 'list.json')
    with pytest.raises(FileNotFoundError, match="absent.json of run 'x'"):
        read_result('x', tmp_path / 'absent.json')
    with pytest.raises(ValueError, match='NAME=FILE'):
        parse_runs(['just_a_file.json'])
    (tmp_path / 'other.json').write_text(json.dumps({'mIoU': 1, 'IoU/road': 1}))
    with pytest.raises(ValueError, match='different classes.*road'):
        parse_runs([f'a={tmp_path}/one.json', f'b={tmp_path}/other.json'])


def test_a_log_gives_its_last_evaluation(tmp_path):
    lines = [{'loss': 1}, {'mIoU': 1, 'IoU/car': 2}, {'mIoU': 3, 'IoU/car': 4}, {'loss': 2}]
    (tmp_path / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    result = read_result('x', tmp_path / 'scalars.json')
    assert (result.miou, result.iou) == (3, {'car': 4})


def test_table5_has_ours_and_the_published(results):
    rows = {row['class']: row for row in table5_rows(results)}
    assert len(rows) == 11
    assert rows['overall'] == {
        'class': 'overall', 'CrIBo': 16, 'S3PT': 21,
        'published S/14': 50.97, 'published S/16': 50.04, 'published S/32': 46.04,
    }  # fmt: skip
    assert rows['truck']['S3PT'] == 16 and rows['truck']['published S/16'] == 41.52


def test_published_figures_fit_thirteen_classes():
    """The inference that the class list rests on: 13 x overall minus the ten leaves about 92 x
    3."""
    for column, rest in zip(PUBLISHED_TABLE5.values(), (91, 93, 92), strict=True):
        ten = sum(value for name, value in column.items() if name != 'overall')
        assert (13 * column['overall'] - ten) / 3 == pytest.approx(rest, abs=0.6)
        assert list(column)[:-1] == list(NUIMAGES_13.classes[:10])


def test_objectwise_writes_figure_and_table(results, tmp_path):
    files = draw_objectwise(results, tmp_path / 'fig' / 'objectwise', title='ToyDrive')
    assert {f.suffix for f in files} == {'.pdf', '.png', '.md', '.csv', '.tex'}
    assert (tmp_path / 'fig/objectwise.pdf').read_bytes().startswith(b'%PDF')
    with Image.open(tmp_path / 'fig/objectwise.png') as picture:
        assert picture.width > picture.height > 300
        assert len(np.unique(np.asarray(picture.convert('L')))) > 5
    with open(tmp_path / 'fig/objectwise.csv') as file:
        rows = {row['class']: row for row in csv.DictReader(file)}
    assert rows['bus'] == {'class': 'bus', 'CrIBo': '', 'S3PT': '18.0'}
    assert rows['mIoU'] == {'class': 'mIoU', 'CrIBo': '16.0', 'S3PT': '21.0'}
    with pytest.raises(ValueError, match='lorry'):
        draw_objectwise(results, tmp_path / 'x', classes=['lorry'])


def test_one_palette_everywhere():
    labels = np.array([[0, 12], [255, 10]])
    painted = colourise(labels, NUIMAGES_13)
    assert painted[1, 0].tolist() == [0, 0, 0]
    assert tuple(painted[0, 0]) == NUIMAGES_13.palette[0]
    assert tuple(painted[1, 1]) == CITYSCAPES_19.palette[0]  # driveable surface is road
    with pytest.raises(ValueError, match=r'\[77\] are no classes of nuimages13'):
        colourise(np.full((2, 2), 77), NUIMAGES_13)
    assert CLASS_SETS['nuimages25'].palette[1] == NUIMAGES_13.palette[10]


@pytest.fixture
def pictures(tmp_path):
    pairs = []
    for name in ('a', 'b'):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / f'{name}.png')
        mask = np.zeros((40, 60), np.uint8)
        mask[20:], mask[:5] = 24, 1
        Image.fromarray(mask).save(tmp_path / f'{name}_mask.png')
        for folder, value in (('good', 10), ('bad', 0)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.full((40, 60), value, np.uint8)).save(
                tmp_path / folder / f'{name}.png'
            )
        pairs.append((tmp_path / f'{name}.png', tmp_path / f'{name}_mask.png'))
    return LabelledImages(pairs, class_set='nuimages13', image_size=(16, 16))


def test_qualitative_shows_the_class_colours(pictures, tmp_path):
    folders = dict(good=tmp_path / 'good', bad=tmp_path / 'bad')
    files = draw_qualitative(pictures, folders, tmp_path / 'qualitative')
    assert files[0].read_bytes().startswith(b'%PDF')
    colours = {tuple(c) for c in np.asarray(Image.open(files[1]).convert('RGB')).reshape(-1, 3)}
    for shown in ((90, 90, 90), (0, 0, 0), *(NUIMAGES_13.palette[i] for i in (0, 10, 12))):
        assert tuple(shown) in colours
    assert NUIMAGES_13.palette[9] not in colours


def test_qualitative_of_own_classes(pictures, tmp_path):
    (tmp_path / 'own.yaml').write_text(
        'classes: [{name: sky, ids: [0, 1], colour: [1, 99, 200]}, {name: way, ids: 24}]'
    )
    own = LabelledImages(pictures.pairs, class_set=tmp_path / 'own.yaml', image_size=(16, 16))
    files = draw_qualitative(own, dict(bad=tmp_path / 'bad'), tmp_path / 'qualitative')
    colours = {tuple(c) for c in np.asarray(Image.open(files[1]).convert('RGB')).reshape(-1, 3)}
    assert {(1, 99, 200), own.class_set.palette[1]} <= colours


def test_qualitative_names_what_is_missing(pictures, tmp_path):
    (tmp_path / 'good' / 'b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'good/b.png.*s3pt-test CONFIG CHECKPOINT --out'):
        draw_qualitative(pictures, dict(good=tmp_path / 'good'), tmp_path / 'q')
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / 'good' / 'b.png')
    with pytest.raises(ValueError, match=r'good for .*b.png is \(4, 4\).*\(40, 60\)'):
        draw_qualitative(pictures, dict(good=tmp_path / 'good'), tmp_path / 'q')
