"""A prepared nuImages folder, and the shipped ToyDrive config shrunk to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.models.backbones import VisionTransformer

import s3pt_mm.resume
import s3pt_mm.segmentation  # noqa: F401
from s3pt_mm.data.nuimages_masks import create_nuimages
from tests.nuimages_tables import write_nuimages

ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)


@pytest.fixture(autouse=True)
def _mmseg_scope(_same_default_scope: None) -> None:
    init_default_scope('mmseg')


@pytest.fixture(scope='session')
def nuimages_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('segmentation') / 'nuimages'
    write_nuimages(root, 'v1.0-train', 4, seed=0)
    write_nuimages(root, 'v1.0-val', 2, seed=1)
    create_nuimages(root, progress=False, random_split=0.5)
    return root


@pytest.fixture(scope='session')
def pretrained(tmp_path_factory) -> Path:
    """A checkpoint as pre-training writes it."""
    torch.manual_seed(3)
    model = VisionTransformer(arch=ARCH, img_size=48, patch_size=16, out_type='raw')
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp('pretrained') / 'teacher.pth'
    state = {f'teacher.backbone.{name}': value for name, value in model.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    return path


@pytest.fixture
def tiny(repository, nuimages_root, pretrained, tmp_path):
    """Builds a config: the shipped one with a tiny ViT, small crops, three iterations."""

    def build(
        head: str = 'linear',
        iterations: int = 3,
        name: str = 'toydrive/{head}_vitt16_nuimages.py',
        root: Path = nuimages_root,
    ) -> Config:
        cfg = Config.fromfile(repository / 'configs' / name.format(head=head))
        cfg.work_dir = str(tmp_path / 'work')
        cfg.model.backbone.update(arch=ARCH, img_size=32)
        cfg.model.backbone.init_cfg.checkpoint = str(pretrained)
        cfg.model.decode_head.update(in_channels=32, channels=32)
        if head == 'mask':
            cfg.model.decode_head.update(embed_dims=32, num_heads=2)
        cfg.model.data_preprocessor.size = (32, 32)
        cfg.model.test_cfg.update(crop_size=(32, 32), stride=(24, 24))
        for name in ('train', 'val', 'test'):
            loader = cfg[f'{name}_dataloader']
            loader.update(num_workers=0, persistent_workers=False)
            loader.dataset.data_root = str(root)
            for step in loader.dataset.pipeline:
                if 'scale' in step:
                    step.scale = (64, 36)
                if 'crop_size' in step:
                    step.crop_size = (32, 32)
        cfg.train_dataloader.batch_size = 2
        cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
        cfg.param_scheduler[0].end = iterations
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
        cfg.experiment_name = f'{head}_{tmp_path.name}_{id(cfg)}'
        return cfg

    return build
