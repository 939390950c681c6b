"""Options that make ToyDrive's configs runs of seconds, for commands of every tool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SMALL_LOADERS = [
    f'{split}_dataloader.{key}'
    for split in ('train', 'val')
    for key in ('num_workers=0', 'persistent_workers=False')
]


def run(*command: object, cwd: Path, **environment: str) -> str:
    """A command that must succeed; all that it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def python(code: str, *arguments: object, cwd: Path, **environment: str) -> str:
    """Run code in a process of its own."""
    return run(sys.executable, '-W', 'ignore', '-c', code, *arguments, cwd=cwd, **environment)


def pretraining(nuscenes: Path) -> list[str]:
    """An epoch of few iterations of DINO, CrIBo or S3PT."""
    return [
        'model.backbone.arch.num_layers=1',
        *('model.head.num_prototypes=32', 'model.head.hidden_channels=32'),
        *('train_cfg.max_epochs=1', 'train_dataloader.batch_size=12'),
        *(option for option in SMALL_LOADERS if option.startswith('train')),
        f'train_dataloader.dataset.data_root={nuscenes}/',
    ]


def segmentation(nuimages: Path, checkpoint: Path) -> list[str]:
    """Two iterations of a linear probe and one validation."""
    return [
        'model.backbone.arch.num_layers=1',
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
        *('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'param_scheduler.0.end=2'),
        *('train_dataloader.batch_size=2', *SMALL_LOADERS),
        *(f'{split}_dataloader.dataset.data_root={nuimages}/' for split in ('train', 'val')),
    ]


def detection(nuscenes: Path, checkpoint: Path) -> list[str]:
    """One iteration of PETR and one validation."""
    return [
        'model.img_backbone.arch.num_layers=1',
        f'model.img_backbone.init_cfg.checkpoint={checkpoint}',
        *('train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=1'),
        'default_hooks.checkpoint.interval=1',
        *(f'{split}_dataloader.dataset.data_root={nuscenes}/' for split in ('train', 'val')),
        f'val_evaluator.data_root={nuscenes}',
    ]
