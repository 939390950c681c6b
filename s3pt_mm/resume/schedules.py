"""Learning-rate schedules of a run that goes on with another length, rate or batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.runner import Runner

_LENGTHS = ('end', 'total_steps')


def hyperparameters(runner: Runner) -> list[dict[str, Any]]:
    """What the config gives every parameter group, before any schedule moved it."""
    return [
        {
            key: copy.deepcopy(group.get(f'initial_{key}', value))
            for key, value in group.items()
            if key != 'params' and not key.startswith('initial_')
        }
        for group in runner.optim_wrapper.param_groups
    ]


def stretch(
    schedules: Sequence[Mapping[str, Any]],
    *,
    epochs: tuple[int, int] | None,
    iterations: tuple[int, int],
) -> list[dict[str, Any]]:
    """Schedules that ended with the run end with it again; the others stay.

    Args:
        schedules: Configs of mmengine's schedulers.
        epochs: (before, now), for schedules in epochs; None: the run has no epochs.
        iterations: (before, now), for schedules in iterations.

    Returns:
        Copies, with new ``end``, ``total_steps`` and ``T_max`` where they were the run's.
    """
    stretched = []
    for schedule in schedules:
        schedule = dict(schedule)
        before, now = epochs if epochs and schedule.get('by_epoch', True) else iterations
        begin = schedule.get('begin', 0)
        for key in _LENGTHS:
            if schedule.get(key) == before:
                schedule[key] = now
        if 'T_max' in schedule and begin + schedule['T_max'] == before:
            schedule['T_max'] = now - begin
        stretched.append(schedule)
    return stretched


def ends(schedules: Sequence[Mapping[str, Any]], *, epochs: int | None, iterations: int) -> bool:
    """Whether any schedule ends with a run of this length."""
    same = stretch(
        schedules, epochs=None if epochs is None else (epochs, -1), iterations=(iterations, -1)
    )
    return any(dict(a) != b for a, b in zip(schedules, same, strict=True))


def rebuild(
    runner: Runner,
    settings: Sequence[Mapping[str, Any]],
    schedules: Sequence[Mapping[str, Any]],
) -> str:
    """Give optimiser and schedulers the values that a run with this config would have here.

    The schedulers are stepped through the past, without the model, because mmengine's are
    recursive: each value follows from the one before.

    Args:
        runner: Resumed; its loop stands at the position to go on from.
        settings: Of :func:`hyperparameters`, of this run's config.
        schedules: Scheduler configs.

    Returns:
        The rates that hold now, for the log.
    """
    groups = runner.optim_wrapper.param_groups
    for group, fresh in zip(groups, settings, strict=True):
        for key in [key for key in group if key.startswith('initial_')]:
            del group[key]
        group.update(copy.deepcopy(dict(fresh)))
    built = runner.build_param_scheduler([dict(schedule) for schedule in schedules])
    runner.optim_wrapper._global_step = 1  # mmengine warns of schedulers that step first
    loop = runner.train_loop
    epoch_length = len(loop.dataloader) if hasattr(loop, 'run_epoch') else 0
    for iteration in range(1, loop.iter + 1):
        for scheduler in built:
            if not scheduler.by_epoch:
                scheduler.step()
        if epoch_length and iteration % epoch_length == 0:
            for scheduler in built:
                if scheduler.by_epoch:
                    scheduler.step()
    runner.param_schedulers = built
    rates = sorted({group['lr'] for group in groups if 'lr' in group}, reverse=True)
    return ', '.join(f'{rate:.3e}' for rate in rates)
