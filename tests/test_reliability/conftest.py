"""A tiny ToyDrive with info files, made once."""

from pathlib import Path

import pytest

from s3pt_mm.datasets.nuscenes_infos import create_infos
from s3pt_mm.toydrive import ToyDriveConfig, generate


@pytest.fixture(scope='session')
def toydrive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nuScenes root: one training scene of two key frames, 12 camera images."""
    folder = tmp_path_factory.mktemp('toydrive') / 'data'
    generate(folder, ToyDriveConfig.tiny(outputs=('nuscenes',)), progress=False)
    root = folder / 'nuscenes'
    create_infos(root=root, version='v1.0-mini', out_dir=root, workers=1)
    return root
