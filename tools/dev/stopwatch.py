"""Where a step's time goes: named intervals, wall and CPU, around existing functions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Accumulates seconds by name; nested intervals are subtracted from the one around them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def _now(self) -> float:
        if self.device.type == 'cuda':
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
