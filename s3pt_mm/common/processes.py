"""Who writes here: processes named so that other hosts can tell them apart."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import tempfile
from pathlib import Path


@functools.cache
def machine() -> str:
    """Names the processes among which a process number means one process, e.g. ``node7-1f6a0c2b``.

    Two hosts, two containers on one host, and one host before and after a restart differ.
    """
    parts = []
    for read in (
        lambda: Path('/proc/sys/kernel/random/boot_id').read_text(),
        lambda: os.readlink('/proc/self/ns/pid'),
    ):
        try:
            parts.append(read())
        except OSError:  # not Linux: the host's name has to do
            parts.append('')
    host = socket.gethostname().replace('.', '-').replace('/', '-')[:64]
    return f'{host}-{hashlib.sha256("".join(parts).encode()).hexdigest()[:8]}'


def started(process: int) -> str:
    """When a process of this :func:`machine` began, in the kernel's ticks; '' where unknown."""
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[19]
    except (OSError, IndexError):
        return ''


def alive(process: int, since: str | None = None) -> bool:
    """Whether a process of this :func:`machine` runs.

    Args:
        process: Its number.
        since: What :func:`started` said of it: the number may be another's by now.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # no such process, no such number
        return False
    except PermissionError:  # somebody else's
        pass
    return since is None or started(process) == since


def file_system_time(folder: Path) -> float:
    """Now, seconds since 1970, by the clock that stamps this folder's files (a server's, maybe)."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix='.clock.') as file:
        return os.fstat(file.fileno()).st_mtime
