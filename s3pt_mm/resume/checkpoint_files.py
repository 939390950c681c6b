"""Checkpoint files that are whole or absent: atomic writing, checksums, and finding the newest
whole one.

Beside ``iter_10.pth`` lies ``iter_10.pth.sha256``, which ``sha256sum -c`` understands::

    # saved 1700000000.123456789 iter 10
    <64 hex digits>  iter_10.pth
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 22


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or none can be trusted; the message says what to do."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint found on disk; nothing is verified yet.

    Attributes:
        path: The file.
        saved: When it was written, seconds since 1970: from the checksum file (so that copying a
            folder does not change the order), else the file's modification time.
    """

    path: Path
    saved: float


def checksum_path(path: Path) -> Path:
    """``iter_10.pth`` -> ``iter_10.pth.sha256``."""
    return path.with_name(path.name + '.sha256')


def temporary_path(path: Path) -> Path:
    """Where a checkpoint is written before it is renamed; never mistaken for a checkpoint."""
    return path.with_name(f'.{path.name}.tmp')


def commit(temporary: Path, path: Path, *, iteration: int) -> None:
    """Turns a fully written temporary file into a checkpoint, whatever moment a crash chooses.

    Order: sync the data, then the checksum, then the rename, then sync the folder. When an existing
    checkpoint is replaced, its checksum stays valid until the rename is done.

    Args:
        temporary: Complete file in the same folder as ``path``.
        path: Final name.
        iteration: Noted in the checksum file.

    Raises:
        OSError: Disk full, or the like; ``path``, if it existed, is as it was.
    """
    _sync(temporary)
    digest = _sha256(temporary)
    old = [d for d in _digests(path) if d != digest] if path.exists() else []
    note = f'# saved {time.time_ns() / 1e9:.9f} iter {iteration}\n'
    _write_checksum(path, note, [digest, *old])
    os.replace(temporary, path)
    _sync(path.parent)
    if old:
        _write_checksum(path, note, [digest])


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint file, or None when it is whole.

    A file without a checksum (written by mmengine itself) is judged by the CRC of its zip members.
    """
    if not path.is_file():
        return 'no such file'
    digests = _digests(path)
    if digests:
        found = _sha256(path)
        if found in digests:
            return None
        return (
            f'torn or altered: SHA-256 is {found[:12]}..., but {checksum_path(path).name} says '
            f'{digests[0][:12]}... ({path.stat().st_size} bytes on disk)'
        )
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        return f'torn or not a torch checkpoint ({error}), and it has no {checksum_path(path).name}'
    return None if member is None else f'altered: bad CRC in its member {member}'


def find_checkpoints(folder: Path, templates: Iterable[str]) -> list[SavedCheckpoint]:
    """Checkpoints in a folder, newest first.

    Args:
        folder: May be absent.
        templates: File names with ``{}`` for the number, e.g. ``iter_{}.pth``.
    """
    patterns = [
        re.compile(r'\d+'.join(re.escape(part) for part in template.split('{}')))
        for template in templates
    ]
    if not folder.is_dir():
        return []
    found = [
        SavedCheckpoint(path, _saved(path))
        for path in folder.iterdir()
        if path.is_file() and any(pattern.fullmatch(path.name) for pattern in patterns)
    ]
    return sorted(found, key=lambda checkpoint: checkpoint.saved, reverse=True)


def newest_whole(
    folder: Path, templates: Iterable[str] = ('epoch_{}.pth', 'iter_{}.pth')
) -> Path | None:
    """The newest checkpoint in a folder that verifies, if there is one."""
    found = (checkpoint.path for checkpoint in find_checkpoints(folder, templates))
    return next((path for path in found if fault(path) is None), None)


def remove(path: Path) -> None:
    """Deletes a checkpoint and then its checksum; absent files are no error."""
    path.unlink(missing_ok=True)
    checksum_path(path).unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Replaces a small text file so that a reader sees the old or the new one."""
    temporary = temporary_path(path)
    try:
        with open(temporary, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _write_checksum(path: Path, note: str, digests: list[str]) -> None:
    lines = ''.join(f'{digest}  {path.name}\n' for digest in digests)
    write_text_atomically(checksum_path(path), note + lines)


def _digests(path: Path) -> list[str]:
    try:
        text = checksum_path(path).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return []
    return re.findall(r'^([0-9a-f]{64}) ', text, flags=re.MULTILINE)


def _saved(path: Path) -> float:
    try:
        text = checksum_path(path).read_text(encoding='utf-8', errors='replace')
    except OSError:
        text = ''
    noted = re.match(r'# saved (\d+\.\d+) ', text)
    return float(noted.group(1)) if noted else path.stat().st_mtime


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Makes a file's data, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
