"""Files that would run code, or read memory that is not theirs, where they are read carelessly."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


def touch(victim: Path) -> Calls:
    """Runs a shell command that makes the file ``victim``."""
    return Calls(os.system, f'touch {victim}')


def rewritten_flags() -> bytes:
    """A pickle of an array of numbers whose dtype claims, by its flags, that they are objects.

    NumPy's own unpickling follows the numbers as pointers.
    """
    whole = pickle.dumps(np.array([0x4141414141414141], dtype=np.uint64), protocol=2)
    flags = b'J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t'  # ..., size -1, alignment -1, flags 0
    assert whole.count(flags) == 1
    return whole.replace(flags, flags[:-2] + b'\x3f' + b't')


def object_pointers() -> bytes:
    """A pickle of an array of objects whose content is bytes: addresses."""
    whole = pickle.dumps(np.zeros(1, np.uint64), protocol=2)
    return whole.replace(b'X\x02\x00\x00\x00u8', b'X\x02\x00\x00\x00O8')


class _Raw:
    """Puts the bytes of another pickle, without its head and its stop, where it stands."""

    def __init__(self, content: bytes) -> None:
        self.content = content


class _Pickler(pickle._Pickler):
    """Python's own pickler, which lets us write bytes where we like."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Raw):
            self.write(obj.content[2:-1])
        else:
            super().save(obj, save_persistent_id)


class RawPickle:
    """Stands in for the pickle module in ``torch.save``."""

    Pickler = _Pickler
    dumps, dump = staticmethod(pickle.dumps), staticmethod(pickle.dump)


def write_checkpoint(kind: str, path: Path, victim: Path) -> None:
    """A malicious checkpoint of one kind."""
    weights = {'state_dict': {'w': torch.ones(2)}}
    if kind == 'shell command':
        torch.save({**weights, 'meta': touch(victim)}, path)
    elif kind == 'shell command, old format':
        torch.save({**weights, 'meta': touch(victim)}, path, _use_new_zipfile_serialization=False)
    elif kind == 'bare pickle':
        path.write_bytes(pickle.dumps({'state_dict': touch(victim)}, protocol=2))
    elif kind == 'getattr':
        torch.save({**weights, 'meta': Calls(getattr, torch.Tensor, '__init__')}, path)
    elif kind == 'TorchScript':
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    elif kind == 'call of ndarray':
        torch.save({**weights, 'meta': Calls(np.ndarray, (1,), 'O', b'AAAAAAAA')}, path)
    elif kind in ('dtype flags', 'object pointers'):
        raw = rewritten_flags() if kind == 'dtype flags' else object_pointers()
        torch.save({**weights, 'meta': _Raw(raw)}, path, pickle_module=RawPickle)
    else:
        raise KeyError(kind)


#: Kinds that are refused by name.
REFUSED = (
    'shell command',
    'shell command, old format',
    'bare pickle',
    'getattr',
    'TorchScript',
    'call of ndarray',
    'object pointers',
)


def write_pickle(kind: str, path: Path, victim: Path) -> None:
    """A malicious info file of one kind."""
    content = {
        'shell command': lambda: pickle.dumps({'metainfo': {}, 'data_list': [touch(victim)]}),
        'object pointers': object_pointers,
        'call of ndarray': lambda: pickle.dumps(Calls(np.ndarray, (1,), 'O', b'AAAAAAAA')),
        'change of the reader': lambda: (
            b'\x80\x02c_codecs\nencode\n' + b'N}' + b'X\x01\x00\x00\x00aK\x01s\x86b.'
        ),
    }
    path.write_bytes(content[kind]())
