"""One tiny ToyDrive for this folder's tests."""

from pathlib import Path

import pytest

from s3pt_mm.toydrive import ToyDriveConfig, generate

CONFIG = ToyDriveConfig.tiny(nuimages_train=2, cityscapes_train=1, cityscapes_val=1)


@pytest.fixture(scope='session')
def toydrive_config() -> ToyDriveConfig:
    return CONFIG


@pytest.fixture(scope='session')
def toydrive_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp('toydrive') / 'data', CONFIG, progress=False)
