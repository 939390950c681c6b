"""Signals that mean: save, then leave."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

_ONE_REQUEST = 2.0  # seconds


class ExitSignals:
    """Notes the first signal and lets a second one act at once.

    A different signal within two seconds of the first belongs to the same request: torchrun sends
    SIGTERM after the terminal's SIGINT. What the shell told us to ignore (nohup) stays ignored.

    Args:
        names: Like ``SIGTERM``.

    Attributes:
        received: The first signal, or None.

    Raises:
        ValueError: An unknown name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if not hasattr(signal, name)]
        if unknown:
            raise ValueError(f'unknown signals {unknown}; names are like SIGTERM and SIGUSR1')
        self.numbers = [getattr(signal, name) for name in names]
        self.received: signal.Signals | None = None
        self._at = 0.0
        self._previous: dict[int, Any] = {}

    def listen(self) -> None:
        """Begin (in the main thread; elsewhere Python gives no signals)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self.numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Put back what was there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._at = signal.Signals(number), time.monotonic()
        elif number == self.received or time.monotonic() - self._at > _ONE_REQUEST:
            self.restore()  # impatient: behave as if we were not here
            os.kill(os.getpid(), number)
