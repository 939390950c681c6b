"""The checkpoints of a folder: written whole or not at all, whose they are, and which is newest.

"Newest" is how far training has come, never what a clock said. Beside ``iter_10.pth`` lies
``iter_10.pth.sha256`` (:mod:`s3pt_mm.common.checksums`), whose note says the iteration and the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from s3pt_mm.common.checksums import (
    checksum_path,
    fault,
    read_checksum,
    sha256,
    write_checksum,
)
from s3pt_mm.common.files import sync, temporary_path

TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or none can be trusted; the message says what to do."""


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint found on disk; nothing is verified yet.

    Attributes:
        path: The file.
        iteration: Iterations of training in it; -1: nobody can tell.
        run: Which run wrote it; None: another program.
    """

    path: Path
    iteration: int
    run: str | None


def write_checkpoint(content: Mapping[str, Any], path: Path, *, iteration: int, run: str) -> None:
    """Write a checkpoint file, whatever moment a crash chooses.

    Order: sync the data, then the checksum, then the rename, then sync the folder. When the run's
    own checkpoint of this name is replaced, its checksum stays valid until the rename is done.
    Another run's is moved aside first.

    Args:
        content: For ``torch.save``.
        path: Final name.
        iteration: Noted in the checksum file.
        run: Noted in the checksum file.

    Raises:
        OSError: Disk full, or the like; ``path``, if it existed, is as it was.
    """
    temporary = temporary_path(path)
    try:
        with open(temporary, 'wb') as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # what the file said to the archive
                    raise error.__context__ from error
                raise
        commit(temporary, path, iteration=iteration, run=run)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def commit(temporary: Path, path: Path, *, iteration: int, run: str) -> None:
    """Give a whole temporary file its name; see :func:`write_checkpoint`."""
    sync(temporary)
    digest = sha256(temporary)
    if path.exists() and describe(path).run != run:
        move_aside(path)
    old = [found for found in read_checksum(path)[0] if found != digest] if path.exists() else []
    note = f'iter {iteration} run {run}'
    write_checksum(path, [digest, *old], note)
    os.replace(temporary, path)
    sync(path.parent)
    if old:
        write_checksum(path, [digest], note)


def move_aside(path: Path) -> Path:
    """Rename another run's checkpoint: ``epoch_1.pth`` -> ``epoch_1.kept_1.pth``."""
    number = 1
    while (kept := path.with_name(f'{path.stem}.kept_{number}{path.suffix}')).exists():
        number += 1
    digests, note = read_checksum(path)
    if digests:
        write_checksum(kept, digests, note)
    os.replace(path, kept)
    checksum_path(path).unlink(missing_ok=True)
    return kept


def describe(path: Path) -> SavedCheckpoint:
    """Whose a checkpoint is and how far it has come, from its note, else from its content."""
    _, note = read_checksum(path)
    iteration, run = re.search(r'\biter (\d+)', note), re.search(r'\brun (\w+)', note)
    return SavedCheckpoint(
        path,
        int(iteration[1]) if iteration else _iteration_inside(path),
        run[1] if run else None,
    )


def _iteration_inside(path: Path) -> int:
    try:
        content = torch.load(path, map_location='cpu', mmap=True, weights_only=True)
        return int(content['meta']['iter'])
    except Exception:  # whatever it is, it cannot be told; fault() says why if it comes to that
        return -1


def find_checkpoints(
    folder: Path, templates: Iterable[str] = TEMPLATES, *, run: str | None = None
) -> list[SavedCheckpoint]:
    """Checkpoints in a folder, those that have come furthest first.

    Args:
        folder: May be absent.
        templates: File names with ``{}`` for the number, e.g. ``iter_{}.pth``.
        run: Only this run's; None: all.
    """
    patterns = [
        re.compile(r'\d+'.join(re.escape(part) for part in template.split('{}')))
        for template in templates
    ]
    if not folder.is_dir():
        return []
    found = [
        describe(path)
        for path in folder.iterdir()
        if path.is_file()
        and any(pattern.fullmatch(path.name) for pattern in patterns)
        and (run is None or read_checksum(path)[1].endswith(f'run {run}'))
    ]
    return sorted(found, key=lambda one: (one.iteration, one.path.name), reverse=True)


def of_the_last_run(folder: Path, found: list[SavedCheckpoint]) -> list[SavedCheckpoint]:
    """Those that the run wrote which saved last here, as far as mmengine's pointer tells.

    A new run in a used folder has not come as far as the finished one, and is yet the one to go on
    with.
    """
    try:
        name = Path((folder / 'last_checkpoint').read_text(encoding='utf-8').strip()).name
    except (OSError, UnicodeDecodeError):
        return found
    runs = {one.run for one in found if one.path.name == name}
    return [one for one in found if one.run in runs] if runs else found


def newest_whole(folder: Path, templates: Iterable[str] = TEMPLATES) -> Path | None:
    """The newest checkpoint of the last run in a folder that verifies, if there is one."""
    found = of_the_last_run(folder, find_checkpoints(folder, templates))
    return next((one.path for one in found if fault(one.path) is None), None)


def prune(path: Path, keep: int, templates: Iterable[str] = TEMPLATES) -> None:
    """Remove a run's older checkpoints.

    Args:
        path: Just written, and never removed; only its run's files are, and none that is further
            (torn ones, from before the run was resumed).
        keep: How many stay; 0 or less: all.
        templates: As :func:`find_checkpoints`'s.
    """
    this = describe(path)
    mine = find_checkpoints(path.parent, templates, run=this.run)
    older = [one for one in mine if one.iteration <= this.iteration and one.path != path]
    for outdated in older[keep - 1 :] if keep > 0 else []:
        remove(outdated.path)


def remove(path: Path) -> None:
    """Deletes a checkpoint, then its checksum and backbone; absent files are no error."""
    path.unlink(missing_ok=True)
    path.with_suffix('.backbone.safetensors').unlink(missing_ok=True)
    checksum_path(path).unlink(missing_ok=True)
