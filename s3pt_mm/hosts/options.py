"""``--cfg-options KEY=VALUE``: how a value is read, and which keys nothing would read."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from s3pt_mm.common.errors import ConfigError

READ_BESIDE_THE_RUNNER = frozenset(
    (
        'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
        'find_unused_parameters', 'float32_matmul_precision', 'model_wrapper_cfg', 'runner_type',
        'sync_bn', 'tta_model', 'tta_pipeline', 'epochs', 'max_iters', 'init',
    )
)  # fmt: skip
"""Top-level keys that mmengine, a launcher or this package reads and ``Runner`` does not name."""

_PATH = re.compile(
    r'(^|_)(root|file|path|dir|folder|prefix|suffix|checkpoint|from|init)$|^(depth_map|class_set)$'
)
_TEXTS = ('include', 'exclude', 'suffixes', 'cameras')
"""Lists of names and patterns: a folder or camera may be called 2024."""

_LIST = re.compile(r'[\[(]([^][()]*(?:\[[^][]*\][^][()]*)*)[\])]')
"""``[a,b]`` with patterns like ``[0-9]*`` in it; ``[0-9]*_[LR]`` is one pattern and no list."""

_SHOWN = 4
_FREE_FORM = ('test_cfg', 'train_cfg', 'mp_cfg', 'clip_grad', 'init_cfg')
"""Dicts without a class of their own: hosts take the keys that they know and ignore the rest."""


def is_path_key(key: str) -> bool:
    """Whether a key holds a path: its last part says so, or it lies in a ``data_prefix``."""
    *parents, last = key.split('.')
    return bool(_PATH.search(last)) or 'data_prefix' in parents


def read_value(key: str, text: str, current: Any = None) -> Any:
    """The value of one option.

    Paths are taken as they are, blanks, commas, digits and all; patterns and names of cameras are
    a list of texts. A text that replaces a text keeps
    its blanks and commas unless it stands in brackets. Everything else is read as OpenMMLab does:
    numbers, True, False, None, ``[a,b]``, ``(a,b)`` and ``a,b``.

    Args:
        key: dotted key.
        text: what stands behind the equals sign.
        current: the config's own value there.
    """
    if text == 'None':
        return None
    if is_path_key(key) and not isinstance(current, list | tuple):
        return text
    if key.rpartition('.')[2] in _TEXTS:
        found = _LIST.fullmatch(text)
        parts = (part.strip().strip('\'"') for part in (found[1] if found else text).split(','))
        return [part for part in parts if part]
    bracketed = text[:1] + text[-1:] in ('[]', '()')
    if isinstance(current, str) and not bracketed and re.search(r'[\s,]', text):
        return text
    try:
        return DictAction._parse_iterable(text)
    except AssertionError:  # brackets that do not close
        return text


def look_up(cfg: Any, key: str) -> Any:
    """The value at a dotted key (list indices are numbers), or None where there is none."""
    for part in key.split('.'):
        if isinstance(cfg, Mapping):
            cfg = cfg.get(part)
        elif isinstance(cfg, list | tuple) and part.isdecimal() and int(part) < len(cfg):
            cfg = cfg[int(part)]
        else:
            return None
    return cfg


def read_options(items: Sequence[str] | Mapping[str, Any] | None, cfg: Config) -> dict[str, Any]:
    """``['KEY=VALUE', ...]`` as a dict; one that is read already passes as it is.

    Raises:
        ConfigError: an item without an equals sign.
    """
    if isinstance(items, Mapping):
        return dict(items)
    options = {}
    for item in items or ():
        key, equals, text = item.partition('=')
        if not equals or not key:
            raise ConfigError(
                f'--cfg-options {item}: write KEY=VALUE, e.g. train_dataloader.batch_size=2; quote '
                'a value with blanks'
            )
        options[key] = read_value(key, text, look_up(cfg._cfg_dict, key))
    return options


def merge_options(cfg: Config, items: Sequence[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge the command line's options into a config.

    Returns:
        What was merged.

    Raises:
        ConfigError: a key that nothing reads, or one that leads through something that is no dict
            and no list.
    """
    options = read_options(items, cfg)
    for key, value in options.items():
        _refuse_unread(cfg, key, value)
        _refuse_misspelt(cfg, key)
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, IndexError, TypeError, AssertionError, AttributeError) as error:
            raise ConfigError(
                f'--cfg-options {key}: the config has no such place ({error})'
            ) from error
    return options


def _refuse_unread(cfg: Config, key: str, value: Any) -> None:
    first, _, rest = key.partition('.')
    read = set(inspect.signature(Runner.__init__).parameters) | READ_BESIDE_THE_RUNNER
    model = cfg.get('model') or {}
    shadowed = first == 'data_preprocessor' and 'data_preprocessor' in model
    if first in read - {'self', 'cfg'} and not shadowed:
        return
    option = f'--cfg-options {key}={value}'
    if first in cfg:
        places = [f'{place}.{rest}' if rest else place for place in _places(cfg, first, cfg[first])]
        problem = f'{first} is a variable of the config file, which nothing reads after loading'
    else:
        near = difflib.get_close_matches(first, sorted(read & set(cfg)), n=1)
        places = [f'{name}.{rest}' for name in near if rest]
        places += _places(cfg, key.rsplit('.', 1)[-1])
        places += near if not rest else []
        problem = 'nothing reads this key'
    if first == 'max_epochs':
        places.insert(0, 'epochs')
    hint = f'. Effective: {", ".join(dict.fromkeys(places[:_SHOWN]))}' if places else ''
    raise ConfigError(f'{option}: {problem}{hint}')


def _refuse_misspelt(cfg: Config, key: str) -> None:
    parent, _, last = key.rpartition('.')
    there = look_up(cfg._cfg_dict, parent)
    if parent.rpartition('.')[2] in _FREE_FORM and isinstance(there, Mapping) and last not in there:
        near = difflib.get_close_matches(last, sorted(there), n=1, cutoff=0.75)
        if near:
            raise ConfigError(f'--cfg-options {key}: did you mean {parent}.{near[0]}?')


def _places(cfg: Config, name: str, value: Any = None) -> Iterator[str]:
    """Dotted keys, below sections that are read, of this name or with this value."""

    def walk(node: Any, path: str) -> Iterator[str]:
        items: Any = ()
        if isinstance(node, Mapping):
            items = node.items()
        elif isinstance(node, list | tuple):
            items = enumerate(node)
        for key, item in items:
            place = f'{path}.{key}'
            if key == name or (isinstance(value, Mapping | list) and item == value):
                yield place
            else:
                yield from walk(item, place)

    read = set(inspect.signature(Runner.__init__).parameters)
    for section in cfg:
        if section in read:
            if section != name and isinstance(value, Mapping | list) and cfg[section] == value:
                yield section
            yield from walk(cfg[section], section)
