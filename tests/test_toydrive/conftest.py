"""One tiny ToyDrive and a few worlds of the default size for this folder's tests."""

from pathlib import Path

import pytest

from s3pt_mm.toydrive import ToyDriveConfig, generate
from s3pt_mm.toydrive.world import World, build_world

CONFIG = ToyDriveConfig.tiny(nuimages_train=2, cityscapes_train=1, cityscapes_val=1)


@pytest.fixture(scope='session')
def toydrive_config() -> ToyDriveConfig:
    return CONFIG


@pytest.fixture(scope='session')
def toydrive_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp('toydrive') / 'data', CONFIG, progress=False)


@pytest.fixture(scope='session')
def worlds() -> list[World]:
    """The first three scenes' worlds at the default size: mini_train, mini_val, mini_train."""
    return [build_world(ToyDriveConfig(), i) for i in range(3)]
