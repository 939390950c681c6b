"""Bytes of a file, or of its part: images and sweeps inside tar shards."""

from __future__ import annotations

import functools
import io
import os

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import read_file

Span = tuple[int, int]
"""Offset and length in bytes of a member of a tar file."""


@functools.lru_cache(maxsize=256)
def _open(path: str, process: int) -> io.FileIO:
    """An open shard: on a cluster's disk opening costs more than reading. Closed when let go of."""
    return io.FileIO(path)


def read_bytes(path: str | os.PathLike[str], span: Span | None = None) -> bytes:
    """All bytes of a file, or those of a span.

    Raises:
        OSError: The file cannot be read.
        DataError: It ends before the span does.
    """
    if span is None:
        return read_file(path)
    offset, size = span
    shard = _open(os.fspath(path), os.getpid())
    there = os.fstat(shard.fileno()).st_size
    data = b''
    while len(data) < size and 0 <= offset <= there - size:  # the system may give less at once
        more = os.pread(shard.fileno(), size - len(data), offset + len(data))
        if not more:
            break
        data += more
    if len(data) != size:
        raise DataError(
            path,
            f'the shard is truncated: {size} bytes at {offset} are asked for, '
            f'{there} bytes are there in all',
            'Copy the shard again, or make it anew with s3pt-prepare',
        )
    return data
