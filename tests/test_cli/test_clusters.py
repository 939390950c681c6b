"""``s3pt-clusters`` end to end on made data, and what it says when something is wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from s3pt_mm.cli.clusters import main, parse_setting
from s3pt_mm.data.datasets.info_file import write_info_file
from s3pt_mm.method.algorithms.s3pt import CLUSTERING
from s3pt_mm.probes.clusters import CRIBO, S3PT
from tests.nuscenes_tables import write_jpeg

FAST = ['--backbone', 'colour', '--size', '128', '--seeds', '0', '1', '--pictures', '1']
SMALL = 'num_clusters=16'


def test_presets_are_the_methods() -> None:
    shared = {key: S3PT[key] for key in CLUSTERING}
    assert shared == CLUSTERING
    assert CRIBO == dict(num_clusters=32, sinkhorn_iterations=5)


def test_settings_are_read_by_type_and_unknown_ones_named() -> None:
    name, options = parse_setting(
        'a=s3pt,depth_weight=2,adaptive_prior=false,depth_completion=none'
    )
    assert name == 'a' and options['depth_weight'] == 2.0
    assert options['adaptive_prior'] is False and options['depth_completion'] == 'none'
    for wrong in ('a', 'a=dino', 'a=s3pt,colour=3'):
        with pytest.raises(argparse.ArgumentTypeError, match=wrong.split(',')[-1]):
            parse_setting(wrong)


def log(root: Path) -> Path:
    """One photo, a sweep of a wall with a near box before it, and labels of its points."""
    write_jpeg(root / 'front/1.jpg', 0)
    y, z = np.meshgrid(np.arange(-12, 12, 0.25), np.arange(-6, 6, 0.25))
    near = (abs(y) < 2) & (abs(z) < 2)
    points = np.stack([np.where(near, 8.0, 20.0), y, z, 0 * y], -1).reshape(-1, 4)
    points.astype(np.float32).tofile(root / '1.bin')
    near.ravel().astype(np.uint8).tofile(root / 'labels_1.bin')
    image = dict(
        img_path='front/1.jpg',
        cam2img=[[400, 0, 320], [0, 400, 180], [0, 0, 1]],
        lidar2cam=[[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]],
    )
    box = dict(bbox_3d=[8, 0, -2, 1, 4, 4, 0], bbox_label_3d=0)
    info = dict(
        token='a',
        images=dict(front=image),
        lidar_points=dict(lidar_path='1.bin', num_pts_feats=4),
        instances=[box],
    )
    write_info_file(root / 'infos.pkl', dict(dataset='mine', categories=dict(car=0)), [info])
    return root / 'infos.pkl'


@pytest.mark.parametrize('labels', ['boxes', 'points'])
def test_depth_is_explained_by_clusters_that_know_it(tmp_path: Path, labels: str) -> None:
    command = [str(log(tmp_path)), *FAST, '--out', str(tmp_path / 'out/q')]
    if labels == 'points':
        command += ['--point-labels', str(tmp_path / 'labels_{stem}.bin'), '--things', '1']
    command += ['--setting', f'flat=s3pt,depth_weight=0,{SMALL}']
    command += ['--setting', f'deep=s3pt,depth_weight=8,{SMALL}']
    assert main(command) == 0
    table = pd.read_csv(tmp_path / 'out/q.csv', index_col='setting')
    assert table.loc['deep', 'depth_explained'] > table.loc['flat', 'depth_explained'] + 0.1
    assert (table['purity'] > 0.9).all() and (table['ari'] <= 1).all()
    assert (table['purity sd'] >= 0).all()
    recall = pd.read_csv(tmp_path / 'out/q_classes.csv', index_col='setting')
    name = 'car' if labels == 'boxes' else '1'
    assert recall[name].between(0, 1).all()
    assert {p.suffix for p in (tmp_path / 'out').iterdir()} == {'.csv', '.md', '.png', '.jpg'}


def test_masks_and_a_random_network(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_jpeg(tmp_path / 'photos/1.jpg', 0)
    (tmp_path / 'masks').mkdir()
    mask = np.zeros((360, 640), np.uint8)
    mask[100:260, 200:440] = 1
    cv2.imwrite(str(tmp_path / 'masks/1.png'), mask)
    (tmp_path / 'classes.json').write_text(json.dumps(['road', 'car']))
    command = [str(tmp_path / 'photos'), '--masks', '../masks/{path}.png', '--arch', 'vitt']
    command += ['--classes', str(tmp_path / 'classes.json'), '--things', 'car', *FAST[2:]]
    command += ['--seeds', '0', '--setting', f'c=cribo,{SMALL}', '--out', str(tmp_path / 'm')]
    assert main(command) == 0
    table = pd.read_csv(tmp_path / 'm_classes.csv', index_col='setting')
    assert 0 <= table.loc['c', 'car'] <= 1
    assert 'depth' not in (tmp_path / 'm.md').read_text()
    cv2.imwrite(str(tmp_path / 'masks/1.png'), mask[:100])
    capsys.readouterr()
    assert main(command) == 1
    assert 'masks/1.png' in capsys.readouterr().err


def test_wrong_point_labels_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = [str(log(tmp_path)), *FAST, '--out', str(tmp_path / 'q'), '--point-labels']
    assert main([*command, str(tmp_path / 'nothing_{stem}.bin')]) == 1
    assert 'nothing_1.bin' in capsys.readouterr().err
    np.zeros(5, np.uint8).tofile(tmp_path / 'short_1.bin')
    assert main([*command, str(tmp_path / 'short_{stem}.bin')]) == 1
    assert '5 labels for the' in capsys.readouterr().err
