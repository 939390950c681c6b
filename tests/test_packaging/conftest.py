"""A tiny ToyDrive for commands that run outside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3pt_mm.data.datasets.nuscenes_infos import create_infos
from s3pt_mm.data.nuimages_masks import create_nuimages
from s3pt_mm.toydrive import ToyDriveConfig, generate


@pytest.fixture(scope='session')
def toydrive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``nuscenes`` (and info files) and ``nuimages`` (and masks)."""
    folder = tmp_path_factory.mktemp('packaging') / 'toydrive'
    root = generate(folder, ToyDriveConfig.tiny(outputs=('nuscenes', 'nuimages')), progress=False)
    create_nuimages(root / 'nuimages', progress=False)
    nuscenes = root / 'nuscenes'
    create_infos(root=nuscenes, version='v1.0-mini', out_dir=nuscenes, workers=1)
    return root
