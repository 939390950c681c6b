"""CPUs that a process may use, on made control groups of both versions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s3pt_mm.common import processes, workers
from s3pt_mm.common.errors import ConfigError


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ('membership', 'files', 'cpus'),
    [
        ('0::/a/b', {'a/b/cpu.max': '250000 100000'}, 2.5),
        ('0::/a/b', {'a/b/cpu.max': 'max 100000', 'a/cpu.max': '100000 100000'}, 1.0),
        ('0::/a/b', {'a/b/cpu.max': '800000 100000', 'cpu.max': '400000 100000'}, 4.0),
        ('0::/host/path', {'cpu.max': '300000 100000'}, 3.0),  # seen from inside the container
        ('0::/', {'cpu.max': 'max 100000'}, None),
        (
            '4:cpu,cpuacct:/job',
            {
                'cpu,cpuacct/job/cpu.cfs_quota_us': '200000',
                'cpu,cpuacct/job/cpu.cfs_period_us': '100000',
            },
            2.0,
        ),
        ('4:cpu:/', {'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, None),
        ('4:memory:/', {'memory/cpu.max': '100000 100000'}, None),
    ],
)
def test_quota(membership: str, files: dict, cpus: float | None, tmp_path: Path) -> None:
    write(tmp_path / 'membership', membership)
    for name, text in files.items():
        write(tmp_path / 'cgroup' / name, text)
    assert workers.cgroup_quota(tmp_path / 'cgroup', tmp_path / 'membership') == cpus


def test_no_control_groups(tmp_path: Path) -> None:
    assert workers.cgroup_quota(tmp_path, tmp_path / 'absent') is None


@pytest.mark.parametrize(('quota', 'cpus'), [(None, 3), (8.0, 3), (2.5, 2), (0.5, 1)])
def test_the_smaller_of_affinity_and_quota(monkeypatch, quota, cpus) -> None:
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {0, 5, 9}, raising=False)
    monkeypatch.setattr(workers, 'cgroup_quota', lambda: quota)
    assert workers.usable_cpus() == cpus


def die(job: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_results_come_in_order() -> None:
    assert list(workers.in_processes(abs, range(-9, 0), 2, chunksize=2)) == list(range(9, 0, -1))


def test_a_killed_worker_is_an_error() -> None:
    """multiprocessing.Pool waits for its answer for ever."""
    with pytest.raises(ConfigError, match='--workers 2: one of these processes was killed'):
        list(workers.in_processes(die, range(4), 2))


def test_workers_end_with_a_killed_main_process(tmp_path: Path) -> None:
    """Else they wait for jobs for ever."""
    code = (
        'import os, sys, time\n'
        'from s3pt_mm.common.workers import in_processes\n'
        f'note = lambda job: open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))\n'
        'def work(job):\n    note(job)\n    time.sleep(0.2)\n'
        'for _ in in_processes(work, range(99), 1): os.kill(os.getpid(), 9)\n'
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    worker = int((tmp_path / 'pid').read_text())
    until = time.monotonic() + 20
    while processes.alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not processes.alive(worker)
