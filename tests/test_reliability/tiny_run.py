"""A model with everything that is hard to resume, small enough to train in milliseconds."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

import s3pt_mm.resume.safe_checkpoint
from s3pt_mm.hosts import compat
from s3pt_mm.resume.keyed_sampler import KeyedIndex

compat.apply()


@DATASETS.register_module()
class NoisyRows(Dataset):
    """Row i is drawn around i, from all three global generators.

    With ``keyed`` they are seeded from the index's key first, as ``SeedFromIndex`` does.
    """

    metainfo = {}
    reads = 0

    def __init__(self, size: int = 22, keyed: bool = True) -> None:
        self.size, self.keyed = size, keyed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        type(self).reads += 1
        if self.keyed and isinstance(index, KeyedIndex):
            seed = hash((index.seed, index.epoch, int(index))) % 2**31
            random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        noise = torch.randn(6) + float(np.random.normal()) + random.random()
        return {'row': noise + 0.1 * int(index), 'index': int(index)}


@MODELS.register_module()
class HardToResume(BaseModel):
    """Dropout, batch norm, an EMA teacher, a centre, a queue with a pointer."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 5)
        )
        self.teacher = nn.Linear(6, 5).requires_grad_(False)
        self.follow = nn.Linear(6, 5)
        self.register_buffer('centre', torch.zeros(5))
        self.register_buffer('queue', torch.zeros(16, 5))
        self.register_buffer('filled', torch.zeros((), dtype=torch.int64))

    def forward(self, row: list, index: list, mode: str = 'loss') -> dict | list:
        x = torch.stack(row) if isinstance(row, list) else row
        if mode != 'loss':
            torch.rand(1), np.random.rand()  # a validation that draws
            return [self.student(x).mean()]
        with torch.no_grad():
            target = self.teacher(x) - self.centre
            place = (self.filled + torch.arange(len(x))) % 16
            nearest = torch.cdist(target, self.queue).argmin(dim=1)
            self.queue[place] = target
            self.filled += len(x)
            self.centre.lerp_(target.mean(dim=0), 0.1)
        out = self.student(x) + self.follow(x)
        noise = 0.1 * random.random() + 0.1 * float(np.random.rand())
        loss = (out - target - noise).square().mean() + (out - self.queue[nearest]).abs().mean()
        return {'loss': loss}


@HOOKS.register_module()
class FollowHook(Hook):
    """The teacher follows the student's linear layer after each optimiser step."""

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        model = getattr(runner.model, 'module', runner.model)
        if runner.optim_wrapper.should_update():
            with torch.no_grad():
                for teacher, student in zip(
                    model.teacher.parameters(), model.follow.parameters(), strict=True
                ):
                    teacher.lerp_(student, 0.2)


@HOOKS.register_module()
class SignalAt(Hook):
    """Sends this process a signal when an iteration is done (or a validation is under way)."""

    def __init__(self, iteration: int, during_validation: bool = False) -> None:
        self.iteration, self.during_validation = iteration, during_validation

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if runner.iter + 1 == self.iteration and not self.during_validation:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_val(self, runner: Runner) -> None:
        if runner.iter == self.iteration and self.during_validation:
            os.kill(os.getpid(), signal.SIGTERM)


@HOOKS.register_module()
class DrawingHook(Hook):
    """Draws random numbers at the start of every epoch, as a hook may."""

    def before_train_epoch(self, runner: Runner) -> None:
        torch.rand(3), np.random.rand(3), random.random()


@METRICS.register_module()
class MeanOutput(BaseMetric):
    """The mean output of the student."""

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results.append(float(data_samples[0]))

    def compute_metrics(self, results: list) -> dict:
        # From the weights, so that a repeated validation gives the same.
        return {'acc': float(results[-1])}


def tiny_config(folder: Path, **changes: object) -> Config:
    """Config of a run of 3 epochs of 6 iterations (the last batch of an epoch is smaller)."""
    cfg = Config(
        {
            'model': {'type': 'HardToResume'},
            'work_dir': str(folder),
            'experiment_name': f'{folder.name}_{random.SystemRandom().random()}',
            'train_dataloader': {
                'batch_size': 4,
                'num_workers': 0,
                'dataset': {'type': 'NoisyRows'},
                'sampler': {'type': 'KeyedSampler', 'shuffle': True},
            },
            'train_cfg': {'type': 'ExactEpochTrainLoop', 'max_epochs': 3},
            'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 0.01}},
            'param_scheduler': [
                {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 4},
                {'type': 'CosineAnnealingLR', 'T_max': 18, 'by_epoch': False},
                {'type': 'StepLR', 'step_size': 1, 'by_epoch': True},
            ],
            'default_hooks': {'checkpoint': {'type': 'SafeCheckpointHook', 'interval': 1}},
            'custom_hooks': [{'type': 'FollowHook'}, {'type': 'DrawingHook'}],
            'randomness': {'seed': 3},
            'log_level': 'ERROR',
        }
    )
    if 'train_cfg' in changes:
        cfg.train_cfg = changes.pop('train_cfg')
    cfg.merge_from_dict(changes)
    return cfg


def train(cfg: Config, *, stop_at: int | None = None, during_validation: bool = False) -> bool:
    """Trains; returns whether it finished (False: it left after the signal at ``stop_at``)."""
    cfg = cfg.copy()
    if stop_at is not None:
        cfg.custom_hooks = [
            *(cfg.get('custom_hooks') or []),
            {'type': 'SignalAt', 'iteration': stop_at, 'during_validation': during_validation},
        ]
    try:
        Runner.from_cfg(cfg).train()
    except SystemExit as left:
        assert left.code == 143
        return False
    return True


def last_checkpoint(folder: Path) -> Path:
    """The file that mmengine's pointer names."""
    return Path((folder / 'last_checkpoint').read_text())


assert s3pt_mm.resume.safe_checkpoint.SafeCheckpointHook  # imported to be registered
