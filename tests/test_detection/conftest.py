"""Inputs of the detection tests: frames as info files, and a small synthetic frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from s3pt_mm.data.datasets.nuscenes_infos import create_infos
from s3pt_mm.toydrive import ToyDriveConfig, generate

from .fake_tables import VERSION, write_fake_tables

IMAGE_SIZE = (90, 160)  # height, width: nuScenes' shape at a tenth


@pytest.fixture(scope='session', params=['made', 'real'])
def frame_root(request: pytest.FixtureRequest) -> Path:
    """nuScenes root of frames: a tiny ToyDrive, and the real key frame where it is there."""
    return request.getfixturevalue({'made': 'toydrive', 'real': 'real_frame'}[request.param])


@pytest.fixture(scope='session')
def frame_infos(frame_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Info file of ``frame_root``'s training split (the real frame has 68 annotated boxes)."""
    out_dir = tmp_path_factory.mktemp('frame_infos')
    create_infos(root=frame_root, version='v1.0-mini', out_dir=out_dir, workers=1)
    return out_dir / 'nuscenes_infos_train.parquet'


@pytest.fixture
def surround_results(tmp_path: Path) -> dict[str, Any]:
    """What a data set hands to LoadSurroundImages: three cameras, looking along x, y and -x."""
    height, width = IMAGE_SIZE
    generator = np.random.RandomState(3)
    images = {}
    for camera, angle in (('CAM_FRONT', 0.0), ('CAM_FRONT_LEFT', np.pi / 2), ('CAM_BACK', np.pi)):
        path = tmp_path / f'{camera}.png'
        cv2.imwrite(str(path), generator.randint(0, 255, (height, width, 3), np.uint8))
        cosine, sine = np.cos(angle), np.sin(angle)
        forward, left = np.array([cosine, sine, 0]), np.array([-sine, cosine, 0])
        lidar2cam = np.eye(4)
        lidar2cam[:3, :3] = np.stack([-left, [0, 0, -1], forward])
        lidar2cam[:3, 3] = (0.1, -0.3, -0.5)
        images[camera] = {
            'img_path': str(path),
            'cam2img': [[126.6, 0, 81.6], [0, 126.6, 49.1], [0, 0, 1]],
            'lidar2cam': lidar2cam.tolist(),
            'height': height,
            'width': width,
        }
    return {'images': images, 'token': 'the-token', 'sample_idx': 0}


@pytest.fixture(scope='session')
def fake_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of tables without sensor files, with info files beside them; see ``fake_tables``."""
    root = write_fake_tables(tmp_path_factory.mktemp('fake') / 'nuscenes')
    create_infos(root=root, version=VERSION, out_dir=root, workers=1)
    return root


@pytest.fixture(scope='session')
def toydrive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nuScenes root of a tiny ToyDrive (one scene a split), with info files beside the tables."""
    folder = tmp_path_factory.mktemp('toydrive') / 'data'
    generate(folder, ToyDriveConfig.tiny(outputs=('nuscenes',)), progress=False)
    root = folder / 'nuscenes'
    create_infos(root=root, version=VERSION, out_dir=root, workers=1)
    return root
