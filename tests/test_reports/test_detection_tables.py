"""The range table: our figures, the published ones, and the tool around them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from s3pt_mm.cli import report
from s3pt_mm.reports.detection_published import CLASSES, METHODS, RANGES, TABLE6
from s3pt_mm.reports.detection_tables import range_rows, write_range_table

OURS = {
    '20m': {'car': 0.5, 'barrier': 0.25, 'mAP': 0.375},
    'official': {'car': 0.4, 'barrier': 0.2, 'mAP': 0.3},
}


def test_published_means_are_those_of_the_columns_but_for_two() -> None:
    """As printed: DINO at 30 m (.261 for .235) and CrIBo at 20 m (.299 for .301) differ."""
    off = {
        (method, limit)
        for method in METHODS
        for limit in RANGES
        if abs(np.mean([TABLE6[method][limit][name] for name in CLASSES])
               - TABLE6[method][limit]['mAP']) > 0.001
    }  # fmt: skip
    assert off == {('DINO', '30m'), ('CrIBo', '20m')}
    assert TABLE6['S3PT']['20m']['bus'] == 0.427
    assert TABLE6['CrIBo']['60m']['motorcycle'] == 0.196


def test_columns_stand_side_by_side_and_say_what_is_quoted() -> None:
    rows, columns = range_rows({'mine': OURS})
    assert list(columns.values()) == [
        'class', 'mine 0-20 m', 'DINO 0-20 m (published)', 'CrIBo 0-20 m (published)',
        'S3PT 0-20 m (published)', 'mine official',
    ]  # fmt: skip
    by_class = {row['class']: row for row in rows}
    assert by_class['car']['20m/mine'] == 0.5
    assert by_class['car']['20m/published/S3PT'] == 0.555
    assert by_class['truck']['20m/mine'] is None
    assert rows[-1]['class'] == 'mAP'
    assert rows[-1]['official/mine'] == 0.3


def test_table_is_written_in_three_formats(tmp_path: Path) -> None:
    paths = write_range_table({'a': OURS, 'b': OURS}, tmp_path / 'table6', published=None)
    assert [path.suffix for path in paths] == ['.md', '.csv', '.tex']
    rows = list(csv.reader(paths[1].open()))
    assert rows[0] == ['class', 'a 0-20 m', 'b 0-20 m', 'a official', 'b official']
    assert rows[-1] == ['mAP', '0.375', '0.375', '0.3', '0.3']
    assert 'published' not in paths[0].read_text()
    assert 'quoted from' in write_range_table({'a': OURS}, tmp_path / 'q')[0].read_text()


def test_mistakes_are_errors() -> None:
    with pytest.raises(ValueError, match='different ranges'):
        range_rows({'a': OURS, 'b': {'20m': OURS['20m']}})
    with pytest.raises(ValueError, match='at least one model'):
        range_rows({})


def test_tool_evaluates_files_side_by_side_and_warns_of_cut_ones(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nuscenes import NuScenes

    from s3pt_mm.detection.metrics.devkit import ground_truth
    from s3pt_mm.detection.metrics.submission import write_submission
    from tests.test_detection.fake_tables import VERSION, write_fake_tables

    root = write_fake_tables(tmp_path / 'nuscenes')
    nusc = NuScenes(VERSION, str(root), verbose=False)
    truth = ground_truth(nusc, [sample['token'] for sample in nusc.sample])
    perfect = {
        token: [
            {key: value for key, value in box.serialize().items()
             if key not in ('ego_translation', 'num_pts')}
            | {'detection_score': 0.5, 'velocity': [0.0, 0.0]}
            for box in truth[token]
        ]
        for token in truth.sample_tokens
    }  # fmt: skip
    near = {
        token: [box for box, place in zip(boxes, truth[token], strict=True) if place.ego_dist < 30]
        for token, boxes in perfect.items()
    }
    write_submission(perfect, tmp_path / 'perfect.json')
    write_submission(near, tmp_path / 'near.json')
    code = report.main(
        ['ranges', '--root', str(root), '--version', VERSION, '--out', str(tmp_path / 'table'),
         '--submission', f'all={tmp_path / "perfect.json"}', f'near={tmp_path / "near.json"}']
    )  # fmt: skip
    output = capsys.readouterr()
    assert code == 0
    assert 'no box of near lies beyond' in output.err
    assert 'no box of all' not in output.err
    rows = {row['class']: row for row in csv.DictReader((tmp_path / 'table.csv').open())}
    assert float(rows['mAP']['all 0-60 m']) == pytest.approx(1.0)
    assert float(rows['mAP']['near 0-30 m']) == pytest.approx(1.0)
    assert float(rows['mAP']['near 0-60 m']) < 0.7
    assert rows['car']['S3PT 0-20 m (published)'] == '0.555'
    assert 'construction vehicle' not in rows

    (tmp_path / 'bad.json').write_text(json.dumps({'meta': {}}))
    code = report.main(
        ['ranges', '--root', str(root), '--version', VERSION, '--out', str(tmp_path / 'no'),
         '--submission', f'bad={tmp_path / "bad.json"}']
    )  # fmt: skip
    assert code == 1
    assert 'bad.json: no nuScenes submission' in capsys.readouterr().err
