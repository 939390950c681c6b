"""The benchmarks' timers: parts of a step by name, and whole tasks in turn."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch


class Stopwatch:
    """Accumulates seconds by name; nested intervals are subtracted from the one around them.

    Attributes:
        waits: Wait for a GPU at every border, so that its work counts where it was asked for;
            False where the whole step is timed, which such waits would slow down.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.waits = True
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def _now(self) -> float:
        if self.waits and self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the block's own seconds to ``name``."""
        self._inner.append(0.0)
        start = self._now()
        try:
            yield
        finally:
            spent = self._now() - start
            self.seconds[name] += spent - self._inner.pop()
            if self._inner:
                self._inner[-1] += spent

    def wrap(self, owner: Any, attribute: str, name: str | Callable[..., str]) -> None:
        """Measure every call of ``owner.attribute``; ``name`` may look at the call's arguments."""
        function = getattr(owner, attribute)

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.measure(name(*args, **kwargs) if callable(name) else name):
                return function(*args, **kwargs)

        # Modules keep plain attributes beside their parameters; the class stays untouched.
        object.__setattr__(owner, attribute, measured)

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by name."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


class Timings(NamedTuple):
    """Medians of one task over the rounds.

    Attributes:
        wall: Seconds until the device had finished.
        host: Seconds until the host was free again.
        cpu: Seconds of the process, all threads.
        ratio: Of its wall seconds to the first task's in the same round.
        cpu_ratio: The same of CPU seconds.
    """

    wall: float
    host: float
    cpu: float
    ratio: float
    cpu_ratio: float


def interleaved(
    tasks: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device | str = 'cpu'
) -> dict[str, Timings]:
    """Time tasks in turn, so that a busy machine hits all alike; one round more is not counted."""
    on_gpu = torch.device(device).type == 'cuda'
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            if on_gpu:
                torch.cuda.synchronize(device)
            start, start_cpu = time.perf_counter(), time.process_time()
            task()
            host = time.perf_counter() - start
            if on_gpu:
                torch.cuda.synchronize(device)
            wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            if number:
                seen[name].append((wall, host, cpu))
    first = seen[next(iter(tasks))]
    return {
        name: Timings(
            *(median(column) for column in zip(*rows, strict=True)),
            median(row[0] / base[0] for row, base in zip(rows, first, strict=True)),
            median(row[2] / base[2] for row, base in zip(rows, first, strict=True)),
        )
        for name, rows in seen.items()
    }


def device_work(task: Callable[[], Any], table: Path | None) -> dict[str, Any]:
    """Kernels of one call on a GPU, what launched them, busy time and where most of it goes.

    Args:
        task: What to run.
        table: File for the profiler's tables; None writes none.
    """
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, record_shapes=True) as seen:
        task()
        torch.cuda.synchronize()
    if table is not None:
        averages = seen.key_averages(group_by_input_shape=True)
        widths = dict(row_limit=120, max_name_column_width=90, max_shapes_column_width=80)
        orders = 'self_cuda_time_total', 'self_cpu_time_total', 'count'
        table.write_text('\n'.join(averages.table(sort_by=key, **widths) for key in orders))
    named = {e.name for e in seen.events() if e.device_type == torch.autograd.DeviceType.CPU}
    # What the host marks, such as a compiled graph, shows on the device's line around its kernels.
    on_device = [
        e
        for e in seen.events()
        if e.device_type == torch.autograd.DeviceType.CUDA and e.name not in named
    ]
    launches = [
        e for e in seen.events() if e.name.startswith(('cudaLaunch', 'cuLaunch', 'cudaGraphLaunch'))
    ]
    waits = [e for e in seen.events() if e.name.startswith('cudaStreamSynchronize')]
    totals: dict[str, float] = {}
    for event in on_device:
        spent = event.time_range.elapsed_us() / 1e3
        totals[event.name[:70]] = totals.get(event.name[:70], 0.0) + spent
    top = sorted(totals.items(), key=lambda pair: -pair[1])[:5]
    busy = round(sum(totals.values()), 2)
    return dict(
        kernels=len(on_device), launches=len(launches), busy_ms=busy, waits=len(waits), top_ms=top
    )
