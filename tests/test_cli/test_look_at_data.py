"""``look_at_data`` draws every camera, with returns where the projection puts them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from s3pt_mm.cli.look_at_data import draw_returns, main


def test_draws_every_camera(info_dir, nuscenes_root, tmp_path, capsys):
    info = str(info_dir / 'nuscenes_infos_train.parquet')
    command = [info, '--root', str(nuscenes_root), '--out-dir', str(tmp_path), '--samples', '2']
    assert main([*command, '--width', '320']) == 0
    pictures = sorted(tmp_path.glob('*.jpg'))
    assert len({path.stem.split('_', 1)[1] for path in pictures}) == 6
    assert cv2.imread(str(pictures[0])).shape == (180, 320, 3)
    assert 'CAM_FRONT: ' in capsys.readouterr().out


def test_near_is_red_and_lies_where_it_projects():
    picture = draw_returns(
        np.zeros((100, 200, 3), np.uint8), np.array([[50, 20, 3.0], [150, 80, 59.0]]), 400
    )
    near, far = picture[40, 100].astype(int), picture[160, 300].astype(int)
    assert near[0] > near[2] and far[2] > far[0]
    assert picture[:, 200].max() == 0


@pytest.mark.parametrize('name', ['absent.pkl', 'torn.pkl'])
def test_bad_info_is_one_line(tmp_path, capsys, name):
    if name == 'torn.pkl':
        (tmp_path / name).write_bytes(b'\x80')
    assert main([str(tmp_path / name)]) == 1
    assert capsys.readouterr().err.count('\n') == 1
