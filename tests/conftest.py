"""Fixtures of the whole suite: compatibility steps, seeds, places of golden numbers and data."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from s3pt_mm.hosts import compat
from tests.nuimages_tables import write_nuimages
from tests.nuscenes_tables import keep_one_key_frame, write_nuscenes

compat.apply()

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_DATA = REPOSITORY.parent / 'shared' / 'data'
# The session's own workers, not a machine's number of cores: test runs share machines.
torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _same_default_scope() -> Iterator[None]:
    """A registry scope that a test sets ends with it: the next one starts as if it ran alone."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(scope='session')
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope='session')
def made_frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nuScenes root of one key frame as large as a real one: ToyDrive's first; read only."""
    from s3pt_mm.toydrive import ToyDriveConfig, generate

    folder = tmp_path_factory.mktemp('frame') / 'data'
    drive = dict(outputs=('nuscenes',), scenes=1, sweeps=0, camera_sweep_scenes=0)
    generate(folder, ToyDriveConfig.tiny(**drive), progress=False)
    return keep_one_key_frame(folder / 'nuscenes')


@pytest.fixture(scope='session')
def real_frame() -> Path:
    """The real nuScenes key frame that lies beside the checkout where CI runs; else skip."""
    return beside_the_checkout('nuscenes-one-frame')


@pytest.fixture(scope='session', params=['made', 'real'])
def one_frame(request: pytest.FixtureRequest) -> Path:
    """nuScenes root of one key frame: what needs a real one runs on one made here, too."""
    return request.getfixturevalue(f'{request.param}_frame')


@pytest.fixture(scope='session')
def any_frame(request: pytest.FixtureRequest) -> Path:
    """For tests of minutes: the real key frame, and in a plain clone the one made here."""
    there = (REAL_DATA / 'nuscenes-one-frame').is_dir()
    return request.getfixturevalue('real_frame' if there else 'made_frame')


def beside_the_checkout(name: str) -> Path:
    """A folder of real data; skips where it is not there. ``test_layout.py`` demands that what
    needs it also runs on data made here."""
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f'no {name} beside the checkout')
    return folder


@pytest.fixture(scope='session')
def nuscenes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-scene nuScenes copy; read only."""
    return write_nuscenes(tmp_path_factory.mktemp('nuscenes'))


@pytest.fixture(scope='session')
def info_dir(nuscenes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Info files of ``nuscenes_root``, with image sweeps."""
    from s3pt_mm.data.datasets.nuscenes_infos import create_infos

    out = tmp_path_factory.mktemp('infos')
    create_infos(root=nuscenes_root, version='v1.0-mini', out_dir=out, image_sweeps=True, workers=1)
    return out


@pytest.fixture
def nuimages_root(tmp_path: Path) -> Path:
    """A nuImages folder of a few small images."""
    root = tmp_path / 'nuimages'
    write_nuimages(root, 'v1.0-train', 5, seed=0)
    write_nuimages(root, 'v1.0-val', 3, seed=1)
    return root
