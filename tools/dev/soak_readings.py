"""Watches a training process from outside: memory, file handles, shared memory, workers."""

from __future__ import annotations

import itertools
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """State of a process and its children at one moment.

    Attributes:
        iteration: Finished iterations, from the run's own log.
        main_mib: Resident memory of the training process.
        workers_mib: Resident memory of its children, pages that they share with it included.
        handles: Open file handles of the training process.
        shared_mib: Shared memory and temporary files that process and children have mapped from
            ``/dev/shm``.
        children: Process ids of the data workers.
        private_mib: The children's part that no other process shares. Not judged: a forked worker
            shares the pages of the training process until one of the two writes to them, so this
            rises by up to what was there at the fork without anybody's asking for memory.
    """

    iteration: int
    main_mib: float
    workers_mib: float
    handles: int
    shared_mib: float
    children: tuple[int, ...]
    private_mib: float = 0.0


def read_process(pid: int, iteration: int) -> Reading | None:
    """Takes a reading, or None if the process is gone. Linux only."""
    try:
        children = _children(pid)
        main = _rollup(pid)
        workers = [_rollup(child) for child in children]
        handles = len(os.listdir(f'/proc/{pid}/fd'))
        shared = sum(_shared_kib(process) for process in (pid, *children))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    private = sum(w.get('Private_Clean', 0) + w.get('Private_Dirty', 0) for w in workers)
    return Reading(
        iteration=iteration,
        main_mib=main.get('Rss', 0) / 1024,
        workers_mib=sum(worker.get('Rss', 0) for worker in workers) / 1024,
        handles=handles,
        shared_mib=shared / 1024,
        children=tuple(children),
        private_mib=private / 1024,
    )


def judge(
    readings: Sequence[Reading], *, warm_up: int, tolerance: float = 0.02, handle_slack: int = 2
) -> list[str]:
    """What grew. Compares the median of the first and the last fifth after the warm-up.

    Workers are compared with themselves: one that replaces a dead one is forked from a process
    that has grown since (optimiser state), and so begins higher and warms up again, for
    ``warm_up`` iterations or half of its life.

    Args:
        readings: In order of time.
        warm_up: Iterations that do not count.
        tolerance: Of memory, as a share of the process's memory.
        handle_slack: File handles that may come and go (a log, a checkpoint being written).

    Returns:
        Findings; empty when everything is flat.

    Raises:
        ValueError: Fewer than ten readings after the warm-up.
    """
    steady = [reading for reading in readings if reading.iteration > warm_up]
    if len(steady) < 10:
        raise ValueError(
            f'{len(steady)} readings after iteration {warm_up}; at least 10 are needed: train for '
            'longer or read more often.'
        )
    findings = []
    whole = _medians(steady, 'main_mib')[0]
    for name, lives in (
        ('main_mib', [steady]),
        ('shared_mib', [steady]),
        ('workers_mib', _lives_of_workers(steady, warm_up)),
    ):
        for life in lives:
            before, after = _medians(life, name)
            if after - before > tolerance * whole:
                findings.append(
                    f'{name} grew from {before:.1f} to {after:.1f} MiB, by more than '
                    f"{tolerance:.0%} of the process's {whole:.0f} MiB"
                )
    before, after = _medians(steady, 'handles')
    if after - before > handle_slack:
        findings.append(f'open file handles grew from {before:.0f} to {after:.0f}')
    before, after = (max(len(r.children) for r in part) for part in _ends(steady))
    if after != before:
        findings.append(f'number of children changed from {before} to {after}')
    return findings


def _ends(readings: Sequence[Reading]) -> tuple[Sequence[Reading], Sequence[Reading]]:
    """The first and the last fifth."""
    fifth = max(len(readings) // 5, 1)
    return readings[:fifth], readings[-fifth:]


def _medians(readings: Sequence[Reading], name: str) -> tuple[float, float]:
    first, last = _ends(readings)
    return tuple(statistics.median(getattr(r, name) for r in part) for part in (first, last))


def _lives_of_workers(steady: Sequence[Reading], warm_up: int) -> list[list[Reading]]:
    """Readings of each set of workers, without its own warm-up; none of a life too short."""
    lives = []
    for number, (_, group) in enumerate(itertools.groupby(steady, key=lambda r: r.children)):
        life = list(group)
        if number > 0:  # born after the warm-up
            born, died = life[0].iteration, life[-1].iteration
            age = min(warm_up, (died - born) / 2)
            life = [reading for reading in life if reading.iteration - born >= age]
        if len(life) >= 5:
            lives.append(life)
    return lives


def finished_iterations(folder: Path) -> int:
    """The newest ``step`` in the JSON logs below a work directory; 0 without one."""
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    if not logs:
        return 0
    with open(logs[-1], 'rb') as file:
        file.seek(max(0, logs[-1].stat().st_size - 4096))
        tail = file.read().decode('utf-8', errors='replace')
    steps = re.findall(r'"step": (\d+)', tail)
    return int(steps[-1]) if steps else 0


def _children(pid: int) -> list[int]:
    text = Path(f'/proc/{pid}/task/{pid}/children').read_text()
    return [int(child) for child in text.split()]


def _rollup(pid: int) -> dict[str, int]:
    """kB by name."""
    lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()[1:]
    return {line.split(':')[0]: int(line.split()[1]) for line in lines if ':' in line}


def _shared_kib(pid: int) -> float:
    """Size of what is mapped from /dev/shm (torch passes batches through it)."""
    total = 0
    for line in Path(f'/proc/{pid}/maps').read_text().splitlines():
        if '/dev/shm/' in line or '/torch_' in line:
            start, stop = line.split(' ', 1)[0].split('-')
            total += int(stop, 16) - int(start, 16)
    return total / 1024
