"""Training steps of the shipped pre-training configs on the pretend accelerator.

``python -m tests.test_pretend.steps OUT.json CONFIG [CONFIG ...] [--recipe]`` writes what each
logged.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from tests.test_pretend import device

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3


def settle() -> None:
    """Make this process believe in the device; before mmpretrain is imported."""
    device.install()
    from s3pt_mm.hosts import compat

    compat.apply()
    import mmengine.device.utils
    import mmengine.optim.optimizer.amp_optimizer_wrapper as amp
    from mmengine.model import BaseModel
    from mmengine.registry import init_default_scope

    mmengine.device.utils.DEVICE = device.NAME
    amp.is_cuda_available = lambda: True
    amp.GradScaler = lambda **options: torch.amp.GradScaler(device.NAME, **options)
    BaseModel.to = _to
    init_default_scope('mmpretrain')


def _to(model: torch.nn.Module, target: str) -> torch.nn.Module:
    """``BaseModel.to`` without the device's own library, which mmengine imports for its name."""
    model._set_device(torch.device(target, 0))
    return torch.nn.Module.to(model, target)


def shrink(cfg: Config, recipe: bool) -> None:
    """Tiny sizes; with ``recipe`` the counts of the recipe: 12 layers, full queue, 128 clusters."""
    model = cfg.model
    model.backbone.arch = ConfigDict(
        embed_dims=16, num_layers=12 if recipe else 2, num_heads=2, feedforward_channels=32
    )
    # xavier: at width 16 the recipe's deviation of 0.02 gives features whose gradients overflow.
    model.head.update(
        num_prototypes=1024, hidden_channels=16, bottleneck_channels=16, init='xavier'
    )
    if 'queue_images' in model or model.type != 'S3PTDINO':
        model.queue_images = 2500 if recipe else 16
    model.data_preprocessor = cfg.data_preprocessor
    # Dynamic scaling starts at 65,536 and would skip the few steps of a test until it fits.
    cfg.optim_wrapper.loss_scale = dict(init_scale=64.0)


def batch(images: int, crops: int, seed: int) -> dict:
    """What the collate function gives: uint8 views, samples with tokens."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(seed)
    ticks = (torch.arange(14) + 0.5) * 16
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing='xy'), -1).flatten(0, 1)
    texture = torch.randint(0, 255, (images, 3, 28, 28), generator=generator)
    photo = texture.float().repeat_interleave(16, 2).repeat_interleave(16, 3).to(torch.uint8)
    samples = []
    for image in range(images):
        geometry = dict(
            token_xy=torch.stack([grid, grid + 56]),
            token_depth=60 * torch.rand(2, 196, generator=generator),
            token_has_depth=torch.rand(2, 196, generator=generator) < 0.5,
        )
        key = torch.tensor(1000 * seed + image)
        samples.append(DataSample(sample_seed=key, **(geometry if crops == 2 else {})))
    views = [photo[:, :, :224, :224], photo[:, :, 56:280, 56:280]]
    views += [photo[:, :, :96, :96]] * (crops - 2)
    return dict(inputs=[view.contiguous() for view in views], data_samples=samples)


def hooked(model: torch.nn.Module, cfg: Config) -> tuple[SimpleNamespace, Any, Any]:
    """What stands for the runner, with its optimiser; the divergence guard; the teacher's update.

    Call it with the device :class:`~tests.test_pretend.device.Everywhere`.
    """
    from mmengine.optim import build_optim_wrapper

    from s3pt_mm.method.hooks import TeacherUpdateHook
    from s3pt_mm.resume.divergence import DivergenceHook

    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, iter=0, max_iters=STEPS)
    runner.message_hub = SimpleNamespace(update_scalar=lambda *_: None)
    guard, teacher = DivergenceHook(), TeacherUpdateHook(0.9)
    guard.before_train(runner)
    teacher.before_train(runner)
    return runner, guard, teacher


def run(config: str, recipe: bool = False) -> dict:
    """Three optimiser steps in fp16 with a loss scaler; the log of the last one.

    Hooks would need a runner; those that touch the device are called as it does.
    """
    from mmpretrain.registry import MODELS

    cfg = Config.fromfile(ROOT / 'configs' / config)
    shrink(cfg, recipe)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    device.move(model)
    dino = cfg.model.type == 'S3PTDINO'
    images = 32 if recipe else 2
    if recipe and not dino:
        rows = torch.randn(2, 60 * 2500, 16)
        model.queue.push(device.DeviceTensor(rows), torch.full((2500,), 60))
    with device.Everywhere():
        runner, _, teacher = hooked(model, cfg)
        start = model.teacher['head'].mlp[0].weight.held.clone()
        for runner.iter in range(STEPS):
            model.epoch = runner.iter
            data = batch(images, 12 if dino else 2, runner.iter)
            device.LOG.clear()
            logged = dict(model.train_step(data, runner.optim_wrapper).items())
            in_model = sum(device.LOG.synchronisations.values()) - 1  # the guard's one wait
            teacher.after_train_iter(runner, 0)
            assert torch.isfinite(torch.stack(list(logged.values()))).all(), logged
    report = device.LOG.report()
    report['teacher_moved'] = not torch.equal(start, model.teacher['head'].mlp[0].weight.held)
    report['synchronisations_in_hooks'] = report['synchronisations'] - in_model
    report['synchronisations_in_model'] = in_model
    report['logged'] = {name: float(value) for name, value in logged.items()}
    return report


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('out', type=Path)
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--recipe', action='store_true')
    arguments = parser.parse_args()
    settle()
    reports = {config: run(config, arguments.recipe) for config in arguments.configs}
    arguments.out.write_text(json.dumps(reports, indent=1))
