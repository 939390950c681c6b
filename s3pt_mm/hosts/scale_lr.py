"""The learning rate follows the real total batch; a schedule's final rate does not."""

from __future__ import annotations

from typing import Any


def total_batch(cfg: Any, world_size: int) -> int:
    """Images behind one optimiser step: ranks x batch of a rank x accumulated batches.

    Args:
        cfg: config with ``train_dataloader.batch_size`` (or a batch sampler's) and, optionally,
            ``optim_wrapper.accumulative_counts``.
        world_size: number of ranks.

    Raises:
        ValueError: the config names no positive batch size.
    """
    loader = cfg['train_dataloader']
    size = loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size')
    if not isinstance(size, int) or size < 1:
        raise ValueError(
            f'train_dataloader.batch_size is {size!r}: the learning rate follows the '
            'batch, so set a positive number, or auto_scale_lr.enable=False'
        )
    return world_size * size * int(cfg['optim_wrapper'].get('accumulative_counts', 1))


def scale_learning_rate(cfg: Any, world_size: int) -> str | None:
    """Scale ``optim_wrapper.optimizer.lr`` linearly with the real total batch.

    mmengine's own scaling leaves out accumulated batches and happens after the config is dumped;
    this one edits the config (and switches mmengine's off), so that the dumped config tells what
    ran. ``eta_min`` of the schedulers is left alone: DINO scales the peak and not the final rate
    (supplement, Table 1: 1e-5 and 2e-6 whatever the batch).

    Args:
        cfg: the whole config; edited in place.
        world_size: number of ranks.

    Returns:
        The line to log, or None where ``auto_scale_lr.enable`` is not set.

    Raises:
        ValueError: no ``base_batch_size``, no learning rate, or no batch size.
    """
    scaling = cfg.get('auto_scale_lr')
    if not scaling or not scaling.get('enable', False):
        return None
    base = scaling.get('base_batch_size')
    if not isinstance(base, int) or base < 1:
        raise ValueError(
            f'auto_scale_lr.base_batch_size is {base!r}: set the total batch that '
            'optim_wrapper.optimizer.lr is meant for'
        )
    optimizer = cfg['optim_wrapper'].get('optimizer')
    if optimizer is None or 'lr' not in optimizer:
        raise ValueError('auto_scale_lr.enable is set, but optim_wrapper.optimizer.lr is missing')
    real = total_batch(cfg, world_size)
    before = optimizer['lr']
    optimizer['lr'] = before * real / base
    scaling['enable'] = False
    accumulated = int(cfg['optim_wrapper'].get('accumulative_counts', 1))
    return (
        f'Learning rate: {before:g} at total batch {base} becomes {optimizer["lr"]:g} at '
        f'{real} = {world_size} ranks x {real // world_size // accumulated} x {accumulated} '
        'accumulated; final rates (eta_min) stay as written.'
    )
