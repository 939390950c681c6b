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
from tests.nuscenes_tables import write_nuscenes

compat.apply()

REPOSITORY = Path(__file__).resolve().parent.parent
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
def one_frame() -> Path:
    """The real nuScenes key frame that lies beside the checkout where CI runs; else skip."""
    root = REPOSITORY.parent / 'shared' / 'data' / 'nuscenes-one-frame'
    if not root.is_dir():
        pytest.skip('no real nuScenes frame beside the checkout')
    return root


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
