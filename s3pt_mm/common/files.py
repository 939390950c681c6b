"""Files that appear under their name only when they are whole, and what killed writers left."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.processes import alive, file_system_time, machine

_LEFTOVER = re.compile(r'\.(?P<name>.+)\.(?P<machine>[^.]+)\.(?P<process>\d+)\.partial')
_DAY = 24 * 3600


def temporary_path(path: Path) -> Path:
    """Where this process prepares ``path``: hidden, beside it, and naming the writer."""
    return path.with_name(f'.{path.name}.{machine()}.{os.getpid()}.partial')


def inside(folder: Path, name: str, source: str | os.PathLike[str]) -> Path:
    """``folder / name`` for a name that a file brings, and which must not leave the folder.

    Args:
        folder: Where the file may lie.
        name: From a table, list or log.
        source: That table, for the message.

    Raises:
        DataError: The name is absolute or climbs up with ``..``.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or '..' in parts or '\0' in name:
        raise DataError(
            source,
            f'names the file {name!r}, which is not inside {folder}',
            'Names are relative and without ".."; do not use this table, or correct it',
        )
    return folder / name


def read_file(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: It cannot be read, or is a folder, a pipe or a device, which may never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'a folder, pipe or device, not a file', os.fspath(path))
    with open(descriptor, 'rb') as file:
        return file.read()


@contextmanager
def replacing(path: str | os.PathLike[str], *, tidy: bool = True) -> Iterator[Path]:
    """A temporary file that takes the name ``path`` when the block ends well.

    Readers see the old file or the whole new one, also after a power cut. Permissions follow umask.

    Args:
        path: The file; missing folders are made.
        tidy: Also remove what killed writers of the same file left (reads the folder's names; for
            many files in one folder call :func:`remove_leftovers` once instead).

    Yields:
        The temporary file's path, to be created by the caller.

    Raises:
        OSError: Disk full, no permission and the like, with ``filename`` set, also where the
            writing library reports its own error; an earlier file is as it was.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            remove_leftovers(path.parent, path.name)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        if cause.filename in (None, str(temporary)):
            cause.filename, cause.filename2 = str(path), None
        if cause is error:
            raise
        raise cause from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind another; torch.save raises its own instead."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def write_bytes(path: str | os.PathLike[str], content: bytes, *, tidy: bool = True) -> None:
    """Write a file as :func:`replacing` does."""
    with replacing(path, tidy=tidy) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 as :func:`replacing` does, line ends as they are.

    File names that are not UTF-8 become readable escapes.
    """
    write_bytes(path, text.encode('utf-8', errors='backslashreplace'))


def write_json(path: str | os.PathLike[str], content: Any, *, indent: int = 1) -> None:
    """Write JSON as :func:`replacing` does; NaN and infinity become null.

    Args:
        path: File; missing folders are made.
        content: What JSON can hold.
        indent: Spaces a level.
    """
    write_text(path, json.dumps(_plain(content), indent=indent) + '\n')


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remove_leftovers(folder: str | os.PathLike[str], name: str | None = None) -> list[Path]:
    """Remove temporary files and folders whose writers are gone.

    A writer on this machine is gone when its process is; of another machine's we only know that
    nothing was written for a day.

    Args:
        folder: Where to look, not deeper.
        name: Only what was to become this file or folder; None: all.

    Returns:
        What was removed.
    """
    removed = []
    for path in Path(folder).glob('.*.partial'):
        found = _LEFTOVER.fullmatch(path.name)
        if found is None or name not in (None, found['name']):
            continue
        gone = found['machine'] == machine() and not alive(int(found['process']))
        try:
            if not gone and file_system_time(path.parent) - _touched(path) < _DAY:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except FileNotFoundError:  # another process tidies up, too, or the writer got ready
            continue
        removed.append(path)
    return removed


def _touched(path: Path) -> float:
    """When a file, or anything in a folder, was last written."""
    times = [item.stat().st_mtime for item in path.rglob('*')] if path.is_dir() else []
    return max([path.stat().st_mtime, *times])


def sync(path: str | os.PathLike[str]) -> None:
    """Make a file's data, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
