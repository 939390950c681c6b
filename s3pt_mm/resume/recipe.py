"""What a checkpoint says of the run that wrote it, and whether this run may go on from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine import dist
from mmengine.runner import Runner

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.common.models import unwrap
from s3pt_mm.resume.checkpoint_files import CheckpointError

_SECTIONS = (
    'model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'auto_scale_lr',
    'custom_hooks', 'default_hooks',
)  # fmt: skip
_ASIDE = ('default_hooks.checkpoint.', 'default_hooks.logger.', 'default_hooks.visualization.')
_OF_A_HOST = (
    'data_root', 'ann_file', 'checkpoint', 'num_workers', 'prefetch_factor', 'persistent_workers',
    'pin_memory', 'images', 'masks', 'root', 'data_prefix',
)  # fmt: skip
_RATES = (
    'param_scheduler', 'optim_wrapper.optimizer.', 'optim_wrapper.paramwise_cfg', 'train_cfg.max_',
)  # fmt: skip


def recipe_of(runner: Runner) -> dict[str, str]:
    """Names of method, optimiser and loop, and all settings that shape training, as JSON text."""
    return dict(
        method=type(unwrap(runner.model)).__name__,
        optimizer=type(getattr(runner.optim_wrapper, 'optimizer', None)).__name__,
        loop=type(runner.train_loop).__name__,
        settings=json.dumps(_settings(runner)),
    )


def _settings(runner: Runner) -> dict[str, Any]:
    config = runner.cfg.to_dict()
    flat: dict[str, Any] = {}
    for section in _SECTIONS:
        _flatten(config.get(section), section, flat)
    # How a run is logged and saved changes nothing in it.
    return {n: v for n, v in flat.items() if not n.startswith(_ASIDE)}


def require_same_settings(runner: Runner) -> None:
    """Stop all ranks of a run whose configs differ, before the first batch.

    Where files lie, and how many workers read them, is each host's own affair.

    Raises:
        ConfigError: On every rank; names a setting with its values by rank.
    """
    if dist.get_world_size() == 1:
        return
    own = {
        name: value
        for name, value in _settings(runner).items()
        if name.rpartition('.')[2] not in _OF_A_HOST
    }
    ranks = dist.all_gather_object(own)
    for name in dict.fromkeys(name for rank in ranks for name in rank):
        values = [rank.get(name, 'absent') for rank in ranks]
        if any(value != values[0] for value in values):
            listed = ', '.join(f'rank {rank}: {value!r}' for rank, value in enumerate(values))
            raise ConfigError(
                f'The ranks have different configs: {name} is {listed}. Start all with the same '
                'config and options.'
            )


def _flatten(value: Any, name: str, into: dict[str, Any]) -> None:
    items: Iterable[tuple[Any, Any]] | None = None
    if isinstance(value, Mapping):
        items = value.items()
    if isinstance(value, list | tuple):
        items = enumerate(value)
    if items is None or not value:
        into[name] = value if isinstance(value, str | int | float | None) else str(value)
        return
    for key, item in items:
        _flatten(item, f'{name}.{key}', into)


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ between two recipes: name -> (then, now)."""
    before, after = json.loads(then['settings']), json.loads(now['settings'])
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def touches_rates(changed: Mapping[str, Any]) -> bool:
    """Whether schedules must be computed anew."""
    return any(name.startswith(_RATES) for name in changed)


def require_same_recipe(
    runner: Runner, checkpoint: Mapping[str, Any], then: Mapping | None
) -> None:
    """Refuse to go on from another method's checkpoint, or one of another optimiser or loop.

    Args:
        runner: Of this run, built but not loaded.
        checkpoint: As read.
        then: Its recipe; None where another program wrote it, and the tensors have to tell.

    Raises:
        CheckpointError: Names what differs, both values, and what to do.
    """
    source, now = runner._load_from, recipe_of(runner)
    remedy = (
        'Resume it with its own config (vis_data/config.py in the folder of its log), or start '
        'anew with another --work-dir; --cfg-options load_from=FILE takes its weights alone.'
    )
    for key in ('method', 'optimizer', 'loop'):
        if then and then[key] != now[key]:
            raise CheckpointError(
                f'{source} was written by another recipe: its {key} is {then[key]}, this '
                f'config has {now[key]}. {remedy}'
            )
    here, there = (
        _shapes(unwrap(runner.model).state_dict()),
        _shapes(checkpoint.get('state_dict', {})),
    )
    if here != there:
        differ = sorted(n for n in {*here, *there} if here.get(n) != there.get(n))
        first = differ[0]
        raise CheckpointError(
            f'{source} was written by another model: {len(differ)} tensors differ, the first is '
            f'{first} (there {there.get(first, "absent")}, here {here.get(first, "absent")}). '
            f'{remedy}'
        )
    if 'param_groups' in checkpoint.get('optimizer', {}):
        # Not the wrapper's own list: it has a group more, mmengine's for the log.
        groups = [len(group['params']) for group in runner.optim_wrapper.optimizer.param_groups]
        written = [len(group['params']) for group in checkpoint['optimizer']['param_groups']]
        if written != groups:
            raise CheckpointError(
                f'{source} was written by another recipe: its optimiser has groups of '
                f'{written} parameters, this run has {groups} (optim_wrapper, frozen parts of the '
                f'model). {remedy}'
            )


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {
        name.removeprefix('module.'): tuple(getattr(value, 'shape', ()))
        for name, value in state.items()
    }
