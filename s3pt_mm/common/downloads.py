"""Weights by address: downloaded once, to a file that is named by the whole address."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import urllib.error
from pathlib import Path
from urllib.parse import urlsplit

from s3pt_mm.common.errors import DataError


def is_address(source: str | os.PathLike[str]) -> bool:
    """Whether ``source`` is an http(s) address and no path."""
    return str(source).startswith(('http://', 'https://'))


def cached_file(address: str) -> Path:
    """Where the file of an address is kept: torch hub's folder (``TORCH_HOME``), ``s3pt_mm``.

    The name holds a digest of the whole address: two hosts' ``checkpoint.pth`` are two files.
    """
    import torch

    digest = hashlib.sha256(address.encode()).hexdigest()[:24]
    name = re.sub(r'[^\w.-]', '_', Path(urlsplit(address).path).name) or 'weights'
    return Path(torch.hub.get_dir()) / 's3pt_mm' / f'{digest}-{name[-80:]}'


def fetch(address: str) -> Path:
    """The file of an address, downloaded unless it is there; one process at a time.

    Raises:
        DataError: the download failed; nothing is left under the file's name.
    """
    import torch

    path = cached_file(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Ranks of one machine wait here for the first of them. The kernel drops a dead one's lock.
    with open(path.with_name(f'.{path.name}.lock'), 'w') as lock, contextlib.ExitStack() as stack:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack.callback(fcntl.flock, lock, fcntl.LOCK_UN)
        if not path.is_file():
            try:
                # Writes beside the file and renames.
                torch.hub.download_url_to_file(address, str(path), progress=os.isatty(2))
            except (urllib.error.URLError, OSError) as error:
                raise DataError(
                    address,
                    f'the download failed ({error})',
                    f'Try again, or put the file at {path} by hand',
                ) from error
    return path
