"""Work in other processes, and how many CPUs this one may use: not all that the machine has."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from s3pt_mm.common.errors import ConfigError

Job = TypeVar('Job')
Result = TypeVar('Result')

_CGROUPS = Path('/sys/fs/cgroup')
_MEMBERSHIP = Path('/proc/self/cgroup')


def usable_cpus() -> int:
    """CPUs that affinity (``taskset``, Slurm) and container quotas leave to this process.

    ``os.cpu_count()`` counts the machine's: in a container with two of 64, 64 workers share two
    cores and torch's threads spin against each other.
    """
    if hasattr(os, 'sched_getaffinity'):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    quota = cgroup_quota()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def cgroup_quota(root: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """CPUs that control groups allow, the tightest on the way to the root; None: no limit.

    Args:
        root: where the control groups are mounted, version 2 or 1.
        membership: ``/proc/<pid>/cgroup``.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(':', 2)
        if not controllers:  # version 2
            limits += _limits(root, path, ('cpu.max',))
        elif 'cpu' in controllers.split(','):
            for mount in {controllers, 'cpu'}:
                limits += _limits(root / mount, path, ('cpu.cfs_quota_us', 'cpu.cfs_period_us'))
    return min(limits, default=None)


def _limits(mount: Path, path: str, files: tuple[str, ...]) -> list[float]:
    """Quotas of a group and of all above it; a container sees its own group as the root."""
    found = []
    folder = mount / path.lstrip('/')
    for place in {mount, folder, *folder.parents}:
        if place != mount and mount not in place.parents:
            continue
        try:
            words = ' '.join((place / name).read_text() for name in files).split()
            quota, period = float(words[0]), float(words[1])
        except (OSError, ValueError, IndexError):  # no such file, or "max"
            continue
        if quota > 0 and period > 0:
            found.append(quota / period)
    return found


def in_processes(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    context: str = 'fork',
    chunksize: int = 1,
    initializer: Callable[[], object] | None = None,
) -> Iterator[Result]:
    """Iterates ``function`` of each job, in the jobs' order, computed by other processes.

    Args:
        function: of a module; with ``fork`` it sees what this process holds when the first job is
            given out.
        jobs: can be pickled.
        workers: processes.
        context: ``fork`` or ``spawn``.
        chunksize: jobs that a process takes at a time.
        initializer: runs in each process first.

    Raises:
        ConfigError: a process was killed. ``multiprocessing.Pool`` waits for such a one for ever.
    """
    ways = multiprocessing.get_context(context)
    pool = ProcessPoolExecutor(workers, ways, _begin, (os.getpid(), initializer))
    try:
        yield from pool.map(function, jobs, chunksize=chunksize)
    except BrokenProcessPool as error:
        raise ConfigError(
            f'--workers {workers}: one of these processes was killed, mostly because memory ran '
            'out: take fewer; the same command goes on where it can'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, initializer: Callable[[], object] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    # The workers of a killed process would wait for jobs for ever.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
