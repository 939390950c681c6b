"""From a config to a complete folder: tasks, processes, progress, and all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from s3pt_mm.common.files import remove_leftovers, temporary_path
from s3pt_mm.common.workers import in_processes, usable_cpus
from s3pt_mm.toydrive import capture_nuscenes, write_cityscapes, write_nuimages, write_nuscenes
from s3pt_mm.toydrive.config import ToyDriveConfig

FORMAT = 3  # raise when the same config gives other bytes
RECORD = 'toydrive.json'
Task = tuple[str, Any, int]  # output, scene or split, sample or frame


def _tasks(config: ToyDriveConfig) -> list[Task]:
    """All frames, neighbours in one world next to each other."""
    tasks: list[Task] = []
    if 'nuscenes' in config.outputs:
        tasks += [
            ('nuscenes', scene, sample)
            for scene in range(config.scenes)
            for sample in range(config.samples_per_scene)
        ]
    for output in ('nuimages', 'cityscapes'):
        if output in config.outputs:
            for split in ('train', 'val'):
                count = getattr(config, f'{output}_{split}')
                tasks += [(output, split, frame) for frame in range(count)]
    return tasks


def _run(config: ToyDriveConfig, root: Path, task: Task) -> tuple[Task, Any]:
    """Write one frame; returns what the tables need to know of it."""
    import cv2

    cv2.setNumThreads(1)
    output, part, frame = task
    if output == 'nuscenes':
        return task, capture_nuscenes.capture(config, root / output, part, frame)
    if output == 'nuimages':
        return task, write_nuimages.capture(config, root / output, part, frame)
    return task, write_cityscapes.capture(config, root / output, part, frame)


def _results(config: ToyDriveConfig, root: Path, tasks: list[Task]) -> Iterator[tuple[Task, Any]]:
    workers = min(config.workers or usable_cpus(), len(tasks))
    work = partial(_run, config, root)
    if workers == 1:
        yield from map(work, tasks)
        return
    # Spawned, not forked: the caller may hold threads (torch) that a fork would leave half-alive.
    yield from in_processes(work, tasks, workers, context='spawn', chunksize=4)


def _existing(out_dir: Path, wanted: dict[str, Any]) -> bool:
    """Whether a complete data set of this very config is there already.

    Raises:
        FileExistsError: If the folder holds anything else.
    """
    record = out_dir / RECORD
    if not out_dir.exists():
        return False
    if not record.is_file():
        if not any(out_dir.iterdir()):
            return False
        raise FileExistsError(
            f'{out_dir}: exists and is no ToyDrive (no {RECORD}); choose another or remove it'
        )
    found = json.loads(record.read_text())
    if found == wanted:
        return True
    differ = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
    values = ', '.join(f'{k}: {found.get(k)} there, {wanted.get(k)} asked for' for k in differ)
    raise FileExistsError(
        f'{out_dir}: holds a ToyDrive of another config ({values}); choose another folder, or '
        'overwrite it (overwrite=True, --overwrite)'
    )


def generate(
    out_dir: str | os.PathLike[str],
    config: ToyDriveConfig | None = None,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write a ToyDrive, or keep the one that is there.

    The data set is written into a hidden sibling folder and renamed when it is whole, so
    ``out_dir`` never holds half of one.

    Args:
        out_dir: Gets ``nuscenes``, ``nuimages`` and ``cityscapes`` (those asked for) and
            ``toydrive.json``, which records the config.
        config: What to make; the default size where None.
        overwrite: Replace a ToyDrive of another config that lies there.
        progress: Show a progress bar.

    Returns:
        ``out_dir`` as an absolute path.

    Raises:
        FileExistsError: If ``out_dir`` holds something other than a ToyDrive of this config.
    """
    config = ToyDriveConfig() if config is None else config
    out_dir = Path(out_dir).absolute()
    wanted = json.loads(json.dumps(dict(format=FORMAT, **config.content())))
    is_toydrive = (out_dir / RECORD).is_file()
    if overwrite and is_toydrive:
        if json.loads((out_dir / RECORD).read_text()) == wanted:
            return out_dir
    elif _existing(out_dir, wanted):
        return out_dir
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out_dir.parent, out_dir.name)
    partial_dir = temporary_path(out_dir)
    try:
        partial_dir.mkdir()
        _write(partial_dir, config, progress)
        (partial_dir / RECORD).write_text(json.dumps(wanted, indent=1, sort_keys=True) + '\n')
        if out_dir.exists():
            if is_toydrive:
                shutil.rmtree(out_dir)
            else:
                out_dir.rmdir()
        partial_dir.rename(out_dir)
    except OSError as error:
        if error.filename is None:  # a full disk: writing libraries do not say where
            error.filename = str(out_dir)
        raise
    finally:
        shutil.rmtree(partial_dir, ignore_errors=True)
    return out_dir


def _write(root: Path, config: ToyDriveConfig, progress: bool) -> None:
    tasks = _tasks(config)
    results: dict[Task, Any] = {}
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, disable=not progress) as bar:
        line = bar.add_task('ToyDrive frames', total=len(tasks))
        for task, result in _results(config, root, tasks):
            results[task] = result
            bar.advance(line)
    if 'nuscenes' in config.outputs:
        captures = [results[task] for task in tasks if task[0] == 'nuscenes']
        write_nuscenes.write_tables(config, root / 'nuscenes', captures)
    if 'nuimages' in config.outputs:
        for split in ('train', 'val'):
            captures = [results[task] for task in tasks if task[:2] == ('nuimages', split)]
            write_nuimages.write_tables(config, root / 'nuimages', split, captures)
