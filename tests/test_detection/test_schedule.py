"""Supplement, Table 4, and mmdet3d's cyclic-20e: values, and steps that stay bounded."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from .petr_cases import petr_config

EPOCH = 20


def build(name: str, model: nn.Module) -> tuple[torch.optim.Optimizer, list]:
    config = petr_config(name)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(one), default_args={'optimizer': wrapper.optimizer, 'epoch_length': EPOCH}
        )
        for one in config.param_scheduler
    ]
    return wrapper.optimizer, schedulers


def trace(name: str, model: nn.Module, steps: int) -> list[list[tuple[float, float]]]:
    optimizer, schedulers = build(name, model)
    values = []
    for _ in range(steps):
        values.append([(g['lr'], g['betas'][0]) for g in optimizer.param_groups])
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return values


def shipped(start: float, peak: float, final: float, epoch: float) -> float:
    if epoch < 8:
        return peak + (start - peak) * (1 + math.cos(math.pi * epoch / 8)) / 2
    return final + (peak - final) * (1 + math.cos(math.pi * (epoch - 8) / 12)) / 2


def test_values_of_every_iteration() -> None:
    values = trace('vits16', nn.Linear(2, 2), 20 * EPOCH)
    for step, ((lr, momentum),) in enumerate(values):
        epoch = step / EPOCH
        warmup = min((step + 1) / EPOCH, 1)
        assert lr == pytest.approx(warmup * shipped(3e-4, 1e-3, 1e-8, epoch), rel=1e-6), step
        expected = min(shipped(0.9, 0.85 / 0.95, 1.0, epoch), 0.999)
        assert momentum == pytest.approx(expected, rel=1e-6), step
    assert values[0][0][0] == pytest.approx(3e-4 / EPOCH)
    assert values[8 * EPOCH][0] == pytest.approx((1e-3, 0.85 / 0.95))
    assert max(momentum for ((_, momentum),) in values) == 0.999


def test_trained_backbone_keeps_its_factor() -> None:
    model = nn.ModuleDict({'img_backbone': nn.Linear(2, 2), 'head': nn.Linear(2, 2)})
    for groups in trace('vovnet99', model, 20 * EPOCH):
        rates = sorted({round(lr, 12) for lr, _ in groups})
        assert rates[0] == pytest.approx(0.1 * rates[-1], rel=1e-3, abs=1e-11)


def updates(steps: int, maximum: float | None, epoch_length: int) -> list[float]:
    """Largest change of a weight in each step of a whole run, in units of the peak rate."""
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    config = petr_config('vits16')
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    config.param_scheduler[1].maximum = maximum
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(one), default_args={'optimizer': optimizer, 'epoch_length': epoch_length}
        )
        for one in config.param_scheduler
    ]
    changes = []
    for _ in range(steps):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        changes.append(float((model.weight.detach() - before).abs().max()) / 1e-3)
    return changes


@pytest.mark.parametrize('epoch_length', [2, 20])
def test_no_step_explodes_at_the_end(epoch_length: int) -> None:
    # Two steps more than planned: the schedules stay at their last value.
    changes = updates(20 * epoch_length + 2, 0.999, epoch_length)
    assert max(changes) < 5
    last = changes[-epoch_length:]
    assert max(last) < 1
    assert all(map(math.isfinite, last))


def test_the_shipped_momentum_would_explode() -> None:
    # beta1 reaches 1 with the run's last value: 1 - beta1^step is 0.
    with pytest.raises(ZeroDivisionError):
        updates(20 * 2 + 2, None, 2)


def test_bad_arguments_are_refused() -> None:
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match='up < total'):
        PARAM_SCHEDULERS.build(
            dict(
                type='S3PTCyclicLR',
                optimizer=optimizer,
                up=8,
                total=8,
                peak_ratio=2,
                final_ratio=0,
                by_epoch=False,
            )
        )
