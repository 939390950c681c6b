"""Tiny data sets and a backbone, made once."""

from pathlib import Path

import pytest
import torch
from mmpretrain.models.backbones import VisionTransformer

from s3pt_mm.data.datasets.nuscenes_infos import create_infos
from s3pt_mm.data.nuimages_masks import create_nuimages
from s3pt_mm.toydrive import ToyDriveConfig, generate
from tests.nuimages_tables import write_nuimages
from tests.test_reliability.method_runs import TINY_VIT


@pytest.fixture(scope='session')
def toydrive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nuScenes root: one training scene of two key frames, 12 camera images."""
    folder = tmp_path_factory.mktemp('toydrive') / 'data'
    generate(folder, ToyDriveConfig.tiny(outputs=('nuscenes',)), progress=False)
    root = folder / 'nuscenes'
    create_infos(root=root, version='v1.0-mini', out_dir=root, workers=1)
    return root


@pytest.fixture(scope='session')
def nuimages_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared nuImages folder of six frames."""
    root = tmp_path_factory.mktemp('reliability') / 'nuimages'
    write_nuimages(root, 'v1.0-train', 4, seed=0)
    write_nuimages(root, 'v1.0-val', 2, seed=1)
    create_nuimages(root, progress=False)
    return root


@pytest.fixture(scope='session')
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as pre-training writes it, of ``method_runs.TINY_VIT``."""
    model = VisionTransformer(arch=TINY_VIT, img_size=48, patch_size=16, out_type='raw')
    path = tmp_path_factory.mktemp('pretrained') / 'teacher.pth'
    state = {f'teacher.backbone.{name}': value for name, value in model.state_dict().items()}
    torch.save({'state_dict': state}, path)
    return path
