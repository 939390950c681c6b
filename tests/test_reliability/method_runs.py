"""The shipped ToyDrive configs, shrunk until a run takes seconds."""

from __future__ import annotations

import random
from pathlib import Path

from mmengine.config import Config

from s3pt_mm.hosts import compat

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

compat.apply()

TINY_VIT = {'embed_dims': 32, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 64}

SMALL_PRETRAINING = {
    'model.backbone.arch.num_layers': 2,
    'model.backbone.arch.embed_dims': 32,
    'model.backbone.arch.feedforward_channels': 64,
    'model.backbone.drop_path_rate': 0.3,  # so that the student draws random numbers
    'model.head.num_prototypes': 32,
    'model.head.hidden_channels': 32,
    'model.head.bottleneck_channels': 16,
    'train_dataloader.batch_size': 4,
    'train_cfg.max_epochs': 3,
    'auto_scale_lr.base_batch_size': 4,
}
SMALL_MEMORY = {'model.clustering.num_clusters': 6, 'model.queue_images': 8}


def small_config(name: str, root: Path, folder: Path, **changes: object) -> Config:
    """A shipped config, small, on the data of ``root``, without workers and TensorBoard.

    Args:
        name: Below ``configs/``.
        root: A nuScenes root with info files.
        folder: Work directory.
        changes: As ``--cfg-options``.
    """
    cfg = Config.fromfile(CONFIGS / name)
    options = {
        'work_dir': str(folder),
        'experiment_name': f'{folder.name}_{random.SystemRandom().random()}',
        'visualizer.vis_backends': [],
        'log_level': 'ERROR',
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.dataset.data_root': f'{root}/',
    }
    if cfg.model.type in ('S3PTDINO', 'CrIBo', 'S3PT'):
        options |= SMALL_PRETRAINING
        # Freeze for one epoch of the three.
        cfg.default_hooks.last_layer_freeze.epochs = 1
    if cfg.model.type in ('CrIBo', 'S3PT'):
        options |= SMALL_MEMORY
    cfg.merge_from_dict({**options, **changes})
    return cfg


def small_segmenter(root: Path, checkpoint: Path, folder: Path, **changes: object) -> Config:
    """Mask Transformer on nuImages: 5 iterations of 2 images, dropout on, validation after 2 and
    4."""
    cfg = small_config('toydrive/mask_vitt16_nuimages.py', root, folder)
    cfg.model.backbone.update(arch=TINY_VIT, img_size=32)
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    cfg.model.decode_head.update(
        in_channels=32, channels=32, embed_dims=32, num_heads=2, dropout_ratio=0.3
    )
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
    cfg.train_cfg.update(max_iters=5, val_interval=2)
    cfg.param_scheduler[0].end = 5
    cfg.merge_from_dict(changes)
    return cfg


def small_petr(root: Path, checkpoint: Path, folder: Path, **changes: object) -> Config:
    """PETR on ToyDrive: 5 iterations of one sample, dropout on, no validation."""
    cfg = small_config('toydrive/petr_vitt16.py', root, folder)
    cfg.model.img_backbone.arch = TINY_VIT
    cfg.model.img_backbone.init_cfg.checkpoint = str(checkpoint)
    cfg.model.pts_bbox_head.update(in_channels=32, embed_dims=32, num_query=20, depth_num=8)
    cfg.model.pts_bbox_head.decoder.update(
        num_layers=2, num_heads=2, feedforward_channels=64, dropout=0.3
    )
    cfg.train_dataloader.batch_size = 1
    cfg.train_dataloader.dataset.indices = 2
    cfg.train_cfg.update(max_iters=5, val_interval=100)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.merge_from_dict(changes)
    return cfg
