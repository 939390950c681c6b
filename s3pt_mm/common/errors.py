"""The error that a bad file raises, and what a failed file operation means to a person."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from s3pt_mm.common.extras import missing_extra


class DataError(RuntimeError):
    """Input that cannot be used.

    Args:
        path: the file (or folder) at fault.
        problem: what is wrong, with the values.
        remedy: what the user can do.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, remedy: str) -> None:
        super().__init__(str(path), problem, remedy)
        self.path = str(path)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f'{self.path}: {self.problem}. {self.remedy}.'


#: What reading a field that is not there, or of another kind than expected, may raise.
_GARBLED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@contextlib.contextmanager
def fields_of(path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
    """Where the content of a file is taken apart: a field that is missing or of another kind names
    the file.

    Raises:
        DataError: In place of what the field raised; errors with words of their own pass.
    """
    try:
        yield
    except _GARBLED as error:
        if isinstance(error, ConfigError):
            raise
        said = f'{type(error).__name__}: {str(error)[:200]}'
        raise DataError(path, f'lacks or garbles a field ({said})', remedy) from error


def explain(error: Exception) -> str:
    """One line for a person: of a failed file operation the path, the reason and the remedy, of a
    missing module the extra that brings it."""
    if not isinstance(error, OSError) or error.errno is None:  # has words of its own
        return missing_extra(error) or str(error)
    path = Path(os.fsdecode(error.filename or '.')).absolute()
    place = next((folder for folder in path.parents if folder.is_dir()), path)
    room = 'Make room'
    if error.filename:
        room += f' ({shutil.disk_usage(place).free / 2**20:.0f} MiB free there)'
    remedy = {
        errno.ENOSPC: room,
        errno.EDQUOT: 'Make room: the quota is used up',
        errno.EFBIG: 'The file system or a limit (ulimit -f) allows no larger file',
        errno.EROFS: 'It is read-only: choose another place to write to',
        errno.EACCES: 'Choose a place that you may write to, or change its permissions',
        errno.EPERM: 'Choose a place that you may write to, or change its permissions',
        errno.ENOTDIR: f'A file lies where a folder is needed ({place}): choose another place',
        errno.EEXIST: 'A file lies where a folder is needed: move it, or choose another place',
        errno.ENOENT: 'Check the path',
    }.get(error.errno, 'Check the disk and the path')
    return f'{error.filename or "writing"}: {error.strerror or error}. {remedy}.'


class ConfigError(ValueError):
    """A command line or config that cannot run; the message names the place and the remedy."""


def exit_status(run: Callable[[], object], *others: type[Exception]) -> int:
    """Run a command; 0, or 1 after one line on standard error about what it cannot use.

    Args:
        run: the command.
        others: errors that are the user's too, beside :class:`DataError`, :class:`ConfigError` and
            failed file operations. All else is a fault of ours, with its traceback.
    """
    errors: tuple[type[Exception], ...] = (DataError, ConfigError, OSError, *others)
    try:
        run()
    except errors as error:
        print(f'error: {" ".join(explain(error).split())}', file=sys.stderr)
        return 1
    return 0
