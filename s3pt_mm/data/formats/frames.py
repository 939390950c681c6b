"""The columns of a pickled pandas table, read without pandas and without running the pickle.

PandaSet publishes its sweeps that way. Every name in the pickle is answered by a recorder of this
file; numbers are taken from their bytes.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.pickles import PlainDtype


class _Record:
    """Keeps what a pickle wants to build an object from."""

    def __init__(self, *args: Any) -> None:
        self.args, self.state = args, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_Record):
    def plain(self) -> np.dtype:
        """The dtype; an error, if it is not of plain values."""
        dtype = PlainDtype(*self.args)
        if self.state is not None:
            dtype.__setstate__(self.state)
        return dtype.numpy


class _Array(_Record):
    def numbers(self) -> np.ndarray:
        """The array of plain numbers that the recorded state describes."""
        _, shape, dtype, fortran, data = self.state
        return _array(data, dtype, shape, 'F' if fortran else 'C')

    def names(self) -> list[str]:
        """The strings of an object array."""
        return [item for item in self.state[4] if isinstance(item, str)]


class _Buffer(_Record):
    def numbers(self) -> np.ndarray:
        """NumPy's form in pickles of protocol 5."""
        return _array(*self.args)


def _array(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(data, dtype.plain()).reshape(shape, order=order)


class _Unpickler(pickle.Unpickler):
    """Answers every global with a recorder; nothing is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if name == 'dtype':
            return _Dtype
        if name == '_reconstruct':
            return _Array
        if name == '_frombuffer':
            return _Buffer
        return type(name, (_Record,), {'module': module})


def _locations(value: Any) -> list[int]:
    """Positions of a block's columns: a slice or an array."""
    if isinstance(value, _Array | _Buffer):
        return value.numbers().tolist()
    return list(range(*[part if part is not None else 1 for part in value.args]))


def _labels(index: Any) -> list[str]:
    """Names of an Index, recorded from ``_new_Index(cls, dict(data=...))``."""
    data = index.args[1]['data']
    return data.names() if isinstance(data, _Array) else [str(item) for item in data]


def read_frame(file: io.BufferedIOBase, path: Path) -> dict[str, np.ndarray]:
    """Columns of numbers of a pickled DataFrame (pandas 0.25 to 2), by name.

    Args:
        file: The pickle, decompressed.
        path: For messages.

    Raises:
        DataError: The pickle is torn, or is no table of plain numbers.
    """
    try:
        frame = _Unpickler(file).load()
        manager = next(value for key, value in frame.state.items() if key in ('_mgr', '_data'))
        if manager.state is not None:  # up to pandas 1.2: axes, values, items, and the same by name
            content = manager.state[3]['0.14.1']
            axes = content['axes']
            blocks = [(block['values'], block['mgr_locs']) for block in content['blocks']]
        else:  # BlockManager(blocks, axes), each block _unpickle_block(values, places, ndim)
            axes = manager.args[1]
            blocks = [block.args[:2] for block in manager.args[0]]
        names, columns = _labels(axes[0]), {}
        for values, places in blocks:
            for row, place in zip(values.numbers(), _locations(places), strict=True):
                columns[names[place]] = row
    except Exception as error:  # a torn pickle can fail in any way
        raise DataError(
            path,
            f'not a pickled table of numbers ({type(error).__name__}: {error})',
            'Download it again; tables written by pandas 3 are not read',
        ) from error
    return columns
