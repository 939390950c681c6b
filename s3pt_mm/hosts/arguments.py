"""Argument names in a config, compared with signatures before anything is built.

``default_hooks.checkpoint.intervall=3`` would be met at the first save, an epoch later.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    DefaultScope,
    Registry,
)
from mmengine.runner import Runner
from mmengine.runner.utils import set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch.distributed import init_process_group
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.hosts.options import look_up

_FREE = frozenset(('type', '_scope_', '_delete_'))
_FIXED = {
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': set(inspect.signature(set_multi_processing).parameters) - {'distributed'},
    'env_cfg.dist_cfg': {
        *inspect.signature(init_dist).parameters,
        *inspect.signature(init_process_group).parameters,
    }
    - {'launcher', 'kwargs'},
    'optim_wrapper.clip_grad': {
        *inspect.signature(clip_grad_norm_).parameters,
        *inspect.signature(clip_grad_value_).parameters,
    }
    - {'parameters'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'randomness': set(inspect.signature(set_random_seed).parameters),
}
# mmengine's CheckpointHook hands what it does not know on, to be met at the first save.
_HANDED_ON = {'CheckpointHook': Runner.save_checkpoint}
_LOADER = {*inspect.signature(DataLoader.__init__).parameters, 'num_batch_per_epoch'}
_LISTS = {'pipeline': TRANSFORMS, 'transforms': TRANSFORMS, 'vis_backends': VISBACKENDS}


def accepted_arguments(cls: type) -> set[str] | None:
    """Names that a class takes, through ``**kwargs`` up to its bases; None if any name will do.

    A class says so with ``takes_any_argument``: its ``**kwargs`` go elsewhere than to a base.
    """
    if getattr(cls, 'takes_any_argument', False):
        return None
    names: set[str] = set()
    for base in cls.__mro__:
        if '__init__' not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())
        if base.__name__ in _HANDED_ON:
            further = inspect.signature(_HANDED_ON[base.__name__]).parameters.values()
            parameters = [p for p in (*parameters, *further) if p.kind is not p.VAR_KEYWORD]
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not open_ended:
            return names - {'self'}
    return None


def _find(registry: Registry, name: Any, scope: str | None) -> type | None:
    if isinstance(name, str):
        with registry.switch_scope_and_registry(scope) as found:
            name = found.get(name)
    return name if inspect.isclass(name) else None


def _compare(path: str, given: Iterable[str], allowed: set[str], owner: str) -> None:
    for key in given:
        if key not in allowed | _FREE:
            near = difflib.get_close_matches(key, sorted(allowed), n=1)
            raise ConfigError(
                f'{path}.{key}: {owner} has no such argument; '
                + (f'did you mean {path}.{near[0]}?' if near else f'it has {sorted(allowed)}')
            )


def _check(
    path: str,
    node: Mapping[str, Any],
    registries: tuple[Registry, ...],
    *,
    more: Iterable[str] = (),
    default: str | None = None,
) -> type | None:
    """Compare one dict with the class that it names; returns that class, None if unknown."""
    for registry in registries:
        cls = _find(registry, node.get('type', default), node.get('_scope_'))
        if cls is not None:
            allowed = accepted_arguments(cls)
            if allowed is not None:
                _compare(path, node, allowed | set(more), cls.__name__)
            return cls
    return None


def _dicts(path: str, node: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A dict, or the dicts of a list, with their keys."""
    if isinstance(node, Mapping):
        yield path, node
    elif isinstance(node, list | tuple):
        for index, item in enumerate(node):
            if isinstance(item, Mapping):
                yield f'{path}.{index}', item


def _check_nested(path: str, node: Any, registries: tuple[Registry, ...]) -> None:
    """Every dict with a ``type`` below a data set or visualiser; steps of pipelines as such."""
    for place, item in _dicts(path, node):
        if 'type' in item:
            cls = _check(place, item, registries)
            prefixes = getattr(cls, 'PREFIXES', None)  # of this package's classes
            if prefixes:
                owner = f"{cls.__name__}'s data_prefix"
                _compare(f'{place}.data_prefix', item.get('data_prefix') or (), prefixes, owner)
        for key, value in item.items():
            if key in _LISTS or key in ('dataset', 'datasets'):
                _check_nested(f'{place}.{key}', value, (_LISTS.get(key, registries[0]),))


def _check_model(path: str, node: Any, given: set[str]) -> None:
    """This package's parts of a model, and whatever the command line touched.

    Hosts' modules take keys out of their children's dicts before building them, so that a
    comparison of the whole tree would refuse configs that work.
    """
    for place, item in _dicts(path, node):
        cls = None
        for registry in (MODELS, TASK_UTILS):
            cls = cls or _find(registry, item.get('type'), item.get('_scope_'))
        touched = any(key.rpartition('.')[0] == place for key in given)
        if cls is not None and (touched or cls.__module__.startswith('s3pt_mm.')):
            _check(place, item, (MODELS, TASK_UTILS), more=('data_preprocessor', 'init_cfg'))
        for key, value in item.items():
            if not key.endswith('_cfg'):
                _check_model(f'{place}.{key}', value, given)


def check_arguments(cfg: Config, given: Iterable[str] = ()) -> None:
    """Compare the names in a config with what will read them.

    Args:
        cfg: merged config; its ``custom_imports`` have run.
        given: keys of the command line.

    Raises:
        ConfigError: names the key, the class and the nearest name that it has.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        _check_all(cfg, set(given))


def _check_all(cfg: Config, given: set[str]) -> None:
    for section, allowed in _FIXED.items():
        _compare(section, look_up(cfg._cfg_dict, section) or (), allowed, section)
    if isinstance(cfg.get('custom_hooks'), Mapping):
        raise ConfigError('custom_hooks is a list, and this config has none to change')
    hooks = cfg.get('default_hooks') or {}
    for name, hook in hooks.items():
        if hook and 'type' not in hook:
            near = difflib.get_close_matches(name, [key for key in hooks if key != name], n=1)
            raise ConfigError(
                f'default_hooks.{name}: there is no such hook, and no type is given'
                + (f'; did you mean default_hooks.{near[0]}?' if near else '')
            )
    for path, hook in [
        *((f'default_hooks.{name}', hook) for name, hook in hooks.items() if hook),
        *_dicts('custom_hooks', cfg.get('custom_hooks')),
    ]:
        _check(path, hook, (HOOKS,), more=('priority',))
    for split in ('train', 'val', 'test'):
        for path, loader in _dicts(f'{split}_dataloader', cfg.get(f'{split}_dataloader')):
            _compare(path, loader, _LOADER, 'the data loader')
            _check_nested(f'{path}.dataset', loader.get('dataset'), (DATASETS,))
            for place, sampler in _dicts(f'{path}.sampler', loader.get('sampler')):
                _check(place, sampler, (DATA_SAMPLERS,))
        for path, metric in _dicts(f'{split}_evaluator', cfg.get(f'{split}_evaluator')):
            _check(path, metric, (METRICS,))
    for name, default in (('train_cfg', None), ('val_cfg', 'ValLoop'), ('test_cfg', 'TestLoop')):
        for path, loop in _dicts(name, cfg.get(name)):
            by_epoch = 'EpochBasedTrainLoop' if loop.get('by_epoch') else 'IterBasedTrainLoop'
            _check(path, loop, (LOOPS,), more=('by_epoch',), default=default or by_epoch)
    for path, scheduler in _dicts('param_scheduler', cfg.get('param_scheduler')):
        _check(path, scheduler, (PARAM_SCHEDULERS,), more=('convert_to_iter_based',))
    wrapper = cfg.get('optim_wrapper') or {}
    more = ('constructor', 'paramwise_cfg')
    if 'constructor' not in wrapper or 'optimizer' in wrapper:
        _check('optim_wrapper', wrapper, (OPTIM_WRAPPERS,), more=more, default='OptimWrapper')
    for path, optimizer in _dicts('optim_wrapper.optimizer', wrapper.get('optimizer')):
        _check(path, optimizer, (OPTIMIZERS,))
    for path, log in _dicts('log_processor', cfg.get('log_processor')):
        _check(path, log, (LOG_PROCESSORS,), default='LogProcessor')
    _check_nested('visualizer', cfg.get('visualizer'), (VISUALIZERS,))
    _check_model('model', cfg.get('model'), given)
