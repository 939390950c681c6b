"""Whether a file is the one that was written: ``weights.pth.sha256`` beside ``weights.pth``.

``sha256sum -c`` understands the checksum file::

    # iter 10 run 5f0c9a3e
    <64 hex digits>  iter_10.pth

A ``.safetensors`` file of ours holds the hash of its content itself, in its metadata.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import write_text

_AGAIN = 'Copy it again from its source, or take an earlier one'
CONTENT_HASH = 'sha256'
"""Key in the metadata of ``.safetensors``: of everything in the file but this entry."""


def checksum_path(path: Path) -> Path:
    """``iter_10.pth`` -> ``iter_10.pth.sha256``."""
    return path.with_name(path.name + '.sha256')


def write_checksum(path: Path, digests: Iterable[str], note: str) -> None:
    """Write the checksum file of ``path``; with several digests the file may have any of them."""
    lines = ''.join(f'{digest}  {path.name}\n' for digest in digests)
    write_text(checksum_path(path), f'# {note}\n{lines}')


def read_checksum(path: Path) -> tuple[list[str], str]:
    """(digests, note) of a file's checksum file; ([], '') if there is none."""
    try:
        text = checksum_path(path).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return [], ''
    note = re.match(r'# (.*)', text)
    return re.findall(r'^([0-9a-f]{64}) ', text, flags=re.MULTILINE), note[1] if note else ''


def sha256(path: str | Path) -> str:
    """A file's SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def content_of(path: str | Path) -> str | None:
    """A hash of a file's bytes, or of all files' in a folder with their names; None for neither
    (an address, a name)."""
    path = Path(path).expanduser()
    if path.is_dir():
        files = sorted(found for found in path.rglob('*') if found.is_file())
        lines = [f'{found.relative_to(path)} {sha256(found)}\n' for found in files]
        return hashlib.sha256(''.join(lines).encode(errors='backslashreplace')).hexdigest()
    return sha256(path) if path.is_file() else None


def fault(path: Path) -> str | None:
    """What is wrong with a file of weights, or None when it is whole as far as can be told.

    Judged by its checksum file; without one, a zip archive (what ``torch.save`` writes) by the CRC
    of its members, which torch itself does not look at.
    """
    if not path.is_file():
        return 'no such file'
    digests, _ = read_checksum(path)
    if digests:
        found = sha256(path)
        if found in digests:
            return None
        return (
            f'torn or altered: SHA-256 is {found[:12]}..., but {checksum_path(path).name} says '
            f'{digests[0][:12]}... ({path.stat().st_size} bytes on disk)'
        )
    return _archive_fault(path, f', and it has no {checksum_path(path).name}')


def _archive_fault(file: Path | IO[bytes], beside: str = '') -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            member = archive.testzip()
    except Exception as error:  # a torn directory can fail in any way
        return f'torn or not a torch checkpoint ({error}){beside}'
    return None if member is None else f'altered: bad CRC in its member {member}'


def content_hash(file: IO[bytes]) -> tuple[str, str | None]:
    """(what the content of an open ``.safetensors`` file hashes to, what its metadata says).

    Raises:
        ValueError: The header is no header.
    """
    file.seek(0)
    header = json.loads(file.read(int.from_bytes(file.read(8), 'little')))
    about = header.get('__metadata__') if isinstance(header, dict) else None
    if not isinstance(about, dict):
        about = {}
    said = about.pop(CONTENT_HASH, None)
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    while chunk := file.read(1 << 22):
        digest.update(chunk)
    return digest.hexdigest(), said


def _content_fault(path: Path) -> str | None:
    try:
        with open(path, 'rb') as file:
            found, said = content_hash(file)
    except (ValueError, MemoryError, OverflowError, RecursionError):
        return None  # no header: its reader says what it misses
    if said in (None, found):
        return None
    return f'altered: its content hashes to {found[:12]}..., its metadata says {str(said)[:12]}...'


def verify_open(file: IO[bytes], name: str) -> None:
    """:func:`verify` for a file that has no place: what a store or an archive hands over.

    Raises:
        DataError: The content is altered.
    """
    start = file.tell()
    wrong = _archive_fault(file) if zipfile.is_zipfile(file) else None
    file.seek(start)
    if wrong:
        raise DataError(name, wrong, _AGAIN)


def verify(path: str | Path) -> None:
    """Refuse a file of weights that is not as it was written; call it before every reading.

    Files of other makers without a checksum file, CRCs or a hash in their metadata (safetensors,
    torch's old format) pass: their readers judge them.

    Raises:
        DataError: The file is torn or altered.
    """
    path, wrong = Path(path), None
    if checksum_path(path).is_file() or zipfile.is_zipfile(path):
        wrong = fault(path)
    elif path.suffix == '.safetensors':
        wrong = _content_fault(path)
    if wrong:
        raise DataError(path, wrong, _AGAIN)
