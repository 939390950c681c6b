"""A run of another length: every schedule follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from s3pt_mm.common.errors import ConfigError

_WARMUP_SHARE, _TEMPERATURE_SHARE, _FREEZE_SHARE = 1 / 10, 1 / 2, 1 / 5
"""The largest shares of a run that the shipped recipes give to these: 10 of 100 epochs, 50 of 100,
8 of 40. Choices of this package."""


def set_epochs(cfg: Config, epochs: int | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """``--epochs N``: write the key that :func:`follow_length` reads.

    Returns:
        Options of the command line, this one among them.

    Raises:
        ConfigError: the run counts iterations, or another length was given too.
    """
    if epochs is None:
        return given
    if given.get('epochs', epochs) != epochs:
        raise ConfigError(
            f'--epochs {epochs} and --cfg-options epochs={given["epochs"]} name two lengths: '
            'give one of them'
        )
    if _unit(cfg) != 'epochs':
        raise ConfigError(
            f'--epochs {epochs}: this config counts iterations: set max_iters=N '
            '(--cfg-options max_iters=N); its schedules follow too'
        )
    cfg['epochs'] = epochs
    return {**given, 'epochs': epochs}


def follow_length(cfg: Config, given: Mapping[str, Any]) -> str | None:
    """Make schedules and loop agree when ``epochs`` or ``train_cfg.max_epochs`` was changed.

    ``max_iters`` and ``train_cfg.max_iters`` where the loop counts iterations. The schedules of the
    config tell which length they were written for; the number that differs from it is the new
    length. Schedules keep their form: a warm-up keeps its length up to a tenth of the run, times
    behind it move in proportion. The teacher's temperature warms up over at most half of the run,
    prototypes stay frozen for at most a fifth. Configs without the key ``epochs`` (``max_iters``)
    are left alone: they do not ask for it.

    Args:
        cfg: merged config; edited in place.
        given: options of the command line. Where it sets a scheduler, all keep their times.

    Returns:
        The line to log, or None where nothing changed.

    Raises:
        ConfigError: both numbers were changed, to different ones; they differ and no schedule tells
            which is the new one; or one is not positive.
    """
    name, other = ('epochs', 'max_iters') if _unit(cfg) == 'epochs' else ('max_iters', 'epochs')
    if other in given:
        raise ConfigError(
            f'--cfg-options {other}={given[other]}: this config counts '
            f'{"epochs" if name == "epochs" else "iterations"}: set {name}=N'
        )
    key = 'max_epochs' if name == 'epochs' else 'max_iters'
    loop = cfg.get('train_cfg') or {}
    if cfg.get(name) is None or loop.get(key) is None:
        return None
    said = [given[option] for option in (name, f'train_cfg.{key}') if option in given]
    if len(set(map(str, said))) > 1:
        raise _two_lengths(name, said[0], key, said[1])
    schedulers = list(_schedulers(cfg, by_epoch=name == 'epochs'))
    ends = max(map(_end, schedulers), default=0)
    if schedulers and any(option.startswith('param_scheduler') for option in given):
        lengths = set(said) or {cfg[name], loop[key]}
        told = bool(said) or len(lengths) > 1
        if len(lengths) > 1:
            lengths -= {ends}
        if len(lengths) > 1:
            raise _two_lengths(name, cfg[name], key, loop[key])
        (length,) = lengths
        if not told:
            return None
        _set_length(cfg, name, key, length)
        return (
            f'Length: {name}={length}; schedules keep the times that they have with '
            f'--cfg-options param_scheduler, and end at {ends}.'
        )
    if not schedulers:  # nothing has to follow, and nothing tells which number is the new one
        if name in given:
            loop[key] = cfg[name]
        elif f'train_cfg.{key}' in given:
            cfg[name] = loop[key]
        elif cfg[name] != loop[key]:
            raise ConfigError(
                f'{name}={cfg[name]} and train_cfg.{key}={loop[key]} name two lengths, and the '
                'config has no schedule that tells which is meant: set both'
            )
        return None
    written = ends or loop[key]
    changed = {value for value in (cfg[name], loop[key]) if value != written}
    if not changed:
        return None
    if len(changed) > 1:
        raise _two_lengths(name, cfg[name], key, loop[key])
    length = changed.pop()
    _set_length(cfg, name, key, length)
    cfg['param_scheduler'] = _scaled(cfg.param_scheduler, schedulers, written, length)
    return (
        f'Length: {name}={length} in place of {written}; schedules end there, warm-ups take at '
        'most a tenth of it (docs/configs.md).'
    )


def _two_lengths(name: str, first: Any, key: str, second: Any) -> ConfigError:
    return ConfigError(
        f'{name}={first} and train_cfg.{key}={second} name two lengths: give one of them'
    )


def _set_length(cfg: Config, name: str, key: str, length: Any) -> None:
    """Loop, validation and hooks of a run of this length."""
    if not isinstance(length, int) or length < 1:
        raise ConfigError(f'{name}={length!r}: give a whole number of at least 1')
    loop = cfg.train_cfg
    cfg[name] = loop[key] = length
    if loop.get('val_interval') is not None:
        loop['val_interval'] = min(loop['val_interval'], length)
    if name == 'epochs':
        _cap_hooks(cfg, length)


def _unit(cfg: Config) -> str:
    loop = cfg.get('train_cfg') or {}
    return 'epochs' if loop.get('max_epochs') is not None else 'max_iters'


def _schedulers(cfg: Config, *, by_epoch: bool) -> Iterator[dict[str, Any]]:
    found = cfg.get('param_scheduler') or []
    for scheduler in found if isinstance(found, list | tuple) else [found]:
        if scheduler.get('by_epoch', True) == by_epoch:
            yield scheduler


def _end(scheduler: Mapping[str, Any]) -> int:
    return scheduler.get('total') or scheduler.get('end') or 0


def _at_most(written: int, length: int, share: float) -> int:
    """A number of epochs, cut to a share of the run: at least one, none in a run of one."""
    return min(written, max(int(length * share), 1)) if length > 1 else 0


def _scaled(
    every: Any, schedulers: list[dict[str, Any]], written: int, length: int
) -> list[dict[str, Any]]:
    """The schedulers, those of ``schedulers`` moved from one length to another."""
    warmups = [s['end'] for s in schedulers if not s.get('begin') and 0 < _end(s) < written]
    before = max(warmups, default=0)
    after = _at_most(before, length, _WARMUP_SHARE)

    def moved(time: float) -> int:
        if time <= before:
            return min(time, after)
        return after + round((time - before) * (length - after) / (written - before))

    scaled = []
    for scheduler in every if isinstance(every, list | tuple) else [every]:
        if not any(scheduler is one for one in schedulers):
            scaled.append(scheduler)
            continue
        new = dict(scheduler)
        begin, end = scheduler.get('begin', 0), scheduler.get('end')
        new['begin'] = moved(begin)
        if end is not None:
            new['end'] = moved(end)
            if new['end'] <= new['begin']:
                continue  # a warm-up of a run of one epoch
        if 'T_max' in new:
            span = (end - begin) if end is not None else written
            new['T_max'] = max(
                round(new['T_max'] * ((new['end'] - new['begin']) if end else length) / span), 1
            )
        if 'milestones' in new:
            new['milestones'] = [moved(time) for time in new['milestones']]
        if 'total' in new:  # cyclic
            new['warmup'] = min(new.get('warmup', 0), max(length * _WARMUP_SHARE, 1))
            new['up'] = new['up'] * length / new['total']
            new['total'] = length
        scaled.append(new)
    return scaled


def _cap_hooks(cfg: Config, length: int) -> None:
    custom = cfg.get('custom_hooks') or []
    for hook in [*(cfg.get('default_hooks') or {}).values(), *custom]:
        kind = (hook or {}).get('type')
        if kind == 'MethodScheduleHook':
            for schedule in (hook.get('linear') or {}).values():
                schedule['epochs'] = max(
                    _at_most(schedule['epochs'], length, _TEMPERATURE_SHARE), 1
                )
        elif kind == 'LastLayerFreezeHook' and hook.get('epochs'):
            hook['epochs'] = _at_most(hook['epochs'], length, _FREEZE_SHARE)
