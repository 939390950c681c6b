"""Pickles read as data: plain containers and NumPy arrays of plain numbers and text, nothing else.

A pickle is a program for a small machine, and what it may call decides what it may do. NumPy's own
constructors are no safe choice: ``dtype.__setstate__`` takes the flags of a dtype from the file,
and an array whose numbers are declared to be objects follows the file's bytes as pointers. Here
every name of NumPy leads to a constructor of this module, which asks the file for a kind, a byte
order, a shape and bytes, and for nothing more.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

#: A kind of plain value and its size: bool, integers, floats, complex, bytes, text.
_PLAIN_DTYPE = re.compile(r'(\?|b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SU]\d*)')


class PlainDtype:
    """Stands in for ``numpy.dtype`` in a pickle.

    Args:
        code: kind and size, as in ``'f8'``.
        align: ignored, as ``copy`` is: both are for structured types, which are refused.
        copy: ignored.

    Raises:
        pickle.UnpicklingError: objects, structured and other types that are not plain.
    """

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f'a NumPy dtype {code!r}, which is not plain data')
        self.numpy = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        """Take the byte order; the flags, last in ``state``, stay unread."""
        if not isinstance(state, tuple) or len(state) < 5 or any(x is not None for x in state[2:5]):
            raise pickle.UnpicklingError('a structured NumPy dtype, which is not plain data')
        if state[1] in ('<', '>'):
            self.numpy = self.numpy.newbyteorder(state[1])


class PlainArray(np.ndarray):
    """An array out of a pickle, empty until its state comes; pickles again as a plain array."""

    def __new__(cls) -> PlainArray:
        """Takes nothing: a file may call this class."""
        return super().__new__(cls, (0,), np.int8)

    def __setstate__(self, state: object) -> None:
        """Take shape, dtype, order and bytes from ``(version, shape, dtype, Fortran, bytes)``."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[4], bytes):
            raise pickle.UnpicklingError('a NumPy array whose content is not plain bytes')
        _, shape, dtype, fortran, content = state
        whole = (shape, _plain(dtype), bool(fortran), content)
        super().__setstate__(whole)  # type: ignore[arg-type]  # NumPy's stub wants a fifth part

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the array without this class."""
        return self.view(np.ndarray).__reduce_ex__(protocol)


def _plain(dtype: object) -> np.dtype:
    if not isinstance(dtype, PlainDtype):
        raise pickle.UnpicklingError(f'a NumPy dtype made of {type(dtype).__name__}')
    return dtype.numpy


class _Constructor:
    """A function that a pickle may call, and of which it can change nothing."""

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError('a pickle that would change what reads it')


@_Constructor
def _ndarray(*args: object) -> None:
    """``numpy.ndarray``: an argument of ``_reconstruct``, never called."""
    raise pickle.UnpicklingError('a call of numpy.ndarray, which is not plain data')


@_Constructor
def _reconstruct(kind: object, shape: object, code: object) -> PlainArray:
    """``numpy.core.multiarray._reconstruct``: an empty array, which its state then fills."""
    if kind is not _ndarray:
        raise pickle.UnpicklingError(f'a NumPy array of the class {kind!r}')
    return PlainArray()


@_Constructor
def _scalar(dtype: object, content: object = b'') -> np.generic:
    """``numpy.core.multiarray.scalar``: one number or text from its bytes."""
    plain = _plain(dtype)
    if not isinstance(content, bytes) or len(content) != plain.itemsize:
        raise pickle.UnpicklingError('a NumPy scalar whose content is not its bytes')
    return np.frombuffer(content, plain)[0] if content else plain.type()


@_Constructor
def _frombuffer(content: Any, dtype: object, shape: Any, order: Any) -> np.ndarray:
    """``numpy.core.numeric._frombuffer``, which protocol 5 names."""
    return np.frombuffer(bytearray(content), _plain(dtype)).reshape(shape, order=order)


@_Constructor
def _encode(text: object, encoding: object = 'latin1') -> bytes:
    """``_codecs.encode``: how protocol 2 writes bytes, e.g. those of a NumPy scalar."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(f'_codecs.encode with {encoding!r}')
    return text.encode('latin1')


@_Constructor
def _no_bytes() -> bytes:
    """``bytes()``: how protocol 2 writes an empty byte string."""
    return b''


#: What a pickle of plain data may name, as it names it -> what it gets. NumPy 1 and 2 differ.
CONSTRUCTORS: dict[str, Callable] = {
    'collections.OrderedDict': OrderedDict,
    '_codecs.encode': _encode,
    'builtins.bytes': _no_bytes,
    '__builtin__.bytes': _no_bytes,
    'numpy.dtype': PlainDtype,
    'numpy.ndarray': _ndarray,
    **{
        f'numpy.{core}.{name}': function
        for core in ('core', '_core')
        for name, function in (
            ('multiarray._reconstruct', _reconstruct),
            ('multiarray.scalar', _scalar),
            ('numeric._frombuffer', _frombuffer),
        )
    },
}


class ForeignGlobalError(pickle.UnpicklingError):
    """A pickle names a class or function that is no plain data."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = CONSTRUCTORS.get(f'{module}.{name}')
        if found is None:
            raise ForeignGlobalError(f'{module}.{name}')
        return found


def load_plain_pickle(file: IO[bytes], **options: Any) -> Any:
    """Read a pickle of plain data; of any other it runs nothing.

    Args:
        file: open for reading bytes.
        **options: ``encoding`` and ``errors`` of :class:`pickle.Unpickler`.

    Raises:
        ForeignGlobalError: the pickle names a class or function that is no plain data; its text is
            that name.
        Exception: a torn pickle can fail in any way.
    """
    return _PlainUnpickler(file, **options).load()
