"""Kills a training run at bad moments, again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MOMENTS = ('starting', 'training', 'saving')
_POLL_SECONDS = 0.0005


class Victim(Protocol):
    """A running training process."""

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""

    def kill(self) -> None:
        """SIGKILL, to its data workers too, and wait for the end."""


@dataclass(frozen=True)
class Kill:
    """One launch and its end.

    Attributes:
        moment: What was aimed at: one of :data:`MOMENTS`.
        seconds: From launch to kill.
        saves: Checkpoints that this launch completed.
        caught_saving: A half-written file was left behind, so the kill hit the writing itself.
        newest: Newest finished checkpoint after the kill, '-' if none.
    """

    moment: str
    seconds: float
    saves: int
    caught_saving: bool
    newest: str


def torment(
    launch: Callable[[], Victim], folder: Path, *, kills: int, seed: int = 0, patience: float = 600
) -> Iterator[Kill]:
    """Launches a run that resumes from ``folder`` and kills it; ``kills`` times.

    A third of the kills each aims at start-up, at a random moment between checkpoints and at the
    writing of one. The run should save every iteration or two and be long enough: each kill lets
    it complete up to three saves.

    Args:
        launch: Starts the run, resuming, with ``folder`` as work directory.
        folder: Where its checkpoints appear.
        kills: How often.
        seed: Of the moments.
        patience: Seconds without a new checkpoint after which a launch counts as hung.

    Yields:
        Every kill as it happened.

    Raises:
        RuntimeError: The run ended by itself: with status 0 it is too short for so many kills,
            otherwise it failed.
        TimeoutError: No checkpoint within ``patience``.
    """
    dice = random.Random(seed)
    moments = [MOMENTS[i % len(MOMENTS)] for i in range(kills)]
    dice.shuffle(moments)
    startup = 1.0  # seconds to the first save; measured as we go
    for number, moment in enumerate(moments):
        saves = _SaveCounter(folder)
        started, born = time.monotonic(), time.time()
        victim = launch()
        wanted = dice.randint(1, 3)
        try:
            if moment == 'starting':
                _watch(victim, lambda s=saves: s.count() > 0, number, dice.uniform(0, startup))
            else:
                _watch(
                    victim, lambda s=saves, w=wanted: s.count() >= w, number, patience, hung=True
                )
                startup = saves.first - started
                pause = (time.monotonic() - saves.first) / wanted
                if moment == 'saving':
                    _watch(
                        victim, lambda b=born: _half_written(folder, b), number, patience, hung=True
                    )
                    pause = 0.001
                _watch(victim, lambda: False, number, dice.uniform(0, pause))
        finally:
            victim.kill()
        seconds = time.monotonic() - started
        newest = folder / 'last_checkpoint'
        name = Path(newest.read_text()).name if newest.exists() else '-'
        yield Kill(moment, seconds, saves.count(), _half_written(folder, born), name)


class _SaveCounter:
    """Counts checkpoints by the pointer file that each of them replaces."""

    def __init__(self, folder: Path) -> None:
        self._pointer = folder / 'last_checkpoint'
        self._seen = self._stamp()
        self._count = 0
        self.first = 0.0

    def _stamp(self) -> int:
        try:
            return self._pointer.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def count(self) -> int:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            self._count += 1
            self.first = self.first or time.monotonic()
        return self._count


def _half_written(folder: Path, since: float) -> bool:
    """Whether a checkpoint is being written by a run that started at ``since``."""
    for path in folder.glob('.*.partial'):
        try:
            if path.stat().st_mtime >= since:
                return True
        except FileNotFoundError:  # renamed meanwhile: finished
            pass
    return False


def _watch(
    victim: Victim, done: Callable[[], bool], number: int, seconds: float, hung: bool = False
) -> None:
    """Waits until ``done``, or ``seconds``, which is an error only if ``hung``."""
    deadline = time.monotonic() + seconds
    while not done():
        status = victim.poll()
        if status is not None:
            why = 'it is too short for so many kills' if status == 0 else 'it failed; see its log'
            raise RuntimeError(
                f'The run ended by itself (status {status}) before kill {number + 1}: {why}.'
            )
        if time.monotonic() > deadline:
            if hung:
                raise TimeoutError(f'No checkpoint in {seconds:.0f} s before kill {number + 1}.')
            return
        time.sleep(_POLL_SECONDS)
