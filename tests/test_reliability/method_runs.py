"""The shipped ToyDrive configs, shrunk until a run takes seconds."""

from __future__ import annotations

import random
from pathlib import Path

from mmengine.config import Config

from s3pt_mm import compat

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

compat.apply()

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
        for hook in cfg.custom_hooks:
            if hook.type == 'LastLayerFreezeHook':
                hook.epochs = 1
    if cfg.model.type in ('CrIBo', 'S3PT'):
        options |= SMALL_MEMORY
    cfg.merge_from_dict({**options, **changes})
    return cfg
