"""How many CPUs this process may use: not all that the machine has."""

from __future__ import annotations

import os
from pathlib import Path

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
