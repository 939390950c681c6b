"""What the pretend accelerator was asked to do, by operation and place in the package."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

# By its folder: an environment may lie in another folder of the package's name.
_PACKAGE = f'{Path(__file__).resolve().parents[2] / "s3pt_mm"}/'


class Log:
    """What has happened since :meth:`clear`: counters by operation and place in the package."""

    def __init__(self) -> None:
        self.listeners: list[Callable[..., None]] = []
        self.events = 0
        self.clear()

    def clear(self) -> None:
        """Forget."""
        self.kernels: Counter[tuple[str, str]] = Counter()
        self.synchronisations: Counter[tuple[str, str]] = Counter()
        self.copies: Counter[str] = Counter()  # host to device, of more than one element
        # What the host sees, what comes, and where it was asked for.
        self.unawaited: list[tuple[Tensor, Tensor, str]] = []
        self.unawaited_copies: Counter[str] = Counter()  # without an event to wait for

    def launch(self, name: str, count: int, *operation: Any) -> None:
        """``count`` kernels of one operation: (function, arguments, options, result)."""
        self.kernels[name, place()] += count
        for listener in self.listeners:
            listener('kernel', name, count, *operation)

    def wait(self, why: str, since: int | None = None) -> None:
        """The host waits for all that was asked of the device, or for what was until an event."""
        self.synchronisations[why, place()] += 1
        for listener in self.listeners:
            listener('wait', why, since)

    def synchronise(self, why: str) -> None:
        """The host waits: what was under way arrives."""
        self.wait(why)
        for seen, real, _ in self.unawaited:
            seen.copy_(real)
        self.unawaited.clear()

    def record(self) -> list[tuple[Tensor, Tensor, str]]:
        """An event: the copies under way that its waiting ends."""
        self.events += 1
        for listener in self.listeners:
            listener('event', self.events)
        covered, self.unawaited = self.unawaited, []
        self.unawaited_copies.subtract(place for *_, place in covered)
        return covered

    def report(self) -> dict[str, Any]:
        """Totals, and where the most of them come from."""
        return dict(
            kernels=sum(self.kernels.values()),
            synchronisations=sum(self.synchronisations.values()),
            copies=sum(self.copies.values()),
            copies_by_place=dict(self.copies),
            unawaited_copies=dict(+self.unawaited_copies),
            kernels_by_place=_by_place(self.kernels),
            synchronisations_by_place=_by_place(self.synchronisations, names=True),
        )


LOG = Log()


def _by_place(counter: Counter, names: bool = False) -> list[tuple[str, int]]:
    total: Counter[str] = Counter()
    for (name, place), count in counter.items():
        total[f'{place} {name}' if names else place.rpartition(':')[0]] += count
    return total.most_common(40)


def place() -> str:
    """``file:line`` of the innermost frame in this package, else in a host library."""
    frame, host = sys._getframe(1), None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE) and not name.endswith('/common/host.py'):
            return f'{name.removeprefix(_PACKAGE)}:{frame.f_lineno}'
        if host is None and '/site-packages/mm' in name:
            host = f'{name.rpartition("/site-packages/")[2]}:{frame.f_lineno}'
        frame = frame.f_back
    return host or 'autograd and optimiser:0'
