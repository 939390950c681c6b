"""The pretend accelerator's streams: what a side stream copies is poison until it is awaited."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from tests.test_pretend.log import LOG

# Numbers of 'sent' and 'awaited' batches of copies, and what a test notes between them.
STORY: list[str] = []


class Stream:
    """Copies given to it arrive when somebody waits for the event recorded after them."""

    active: ClassVar[Stream | None] = None

    def __init__(self, device: object = None) -> None:
        self.pending: list[tuple[Tensor, Tensor]] = []

    def record_event(self) -> list[tuple[Tensor, Tensor]]:
        """What was copied since the last event."""
        STORY.append('sent')
        event, self.pending = self.pending, []
        return event

    def wait_event(self, event: list[tuple[Tensor, Tensor]]) -> None:
        """This stream goes on when the copies are there."""
        STORY.append('awaited')
        for seen, real in event:
            seen.copy_(real)


class Event:
    """Waiting for one ends the copies to the host that were under way when it was recorded."""

    def record(self, stream: object = None) -> None:
        """Here."""
        self.covered, self.number = LOG.record(), LOG.events

    def synchronize(self) -> None:
        """The host waits for what came before."""
        LOG.wait('event', self.number)
        for seen, real, _ in self.covered:
            seen.copy_(real)


_CURRENT = Stream()


@contextlib.contextmanager
def _on(stream: Stream) -> Iterator[None]:
    Stream.active = stream
    try:
        yield
    finally:
        Stream.active = None


def under_way(real: Tensor, poison: int) -> Tensor:
    """What the device holds after a copy from the host: on a side stream not yet the numbers."""
    if Stream.active is None:
        return real
    seen = torch.full_like(real, poison)
    Stream.active.pending.append((seen, real))
    return seen


def install(backend: Any, tensor: Any) -> None:
    """Give the device's module its streams, and its tensors ``record_stream``."""
    backend.Stream, backend.stream, backend.Event = Stream, staticmethod(_on), Event
    backend.current_stream = staticmethod(lambda *_: _CURRENT)
    tensor.record_stream = lambda *_: None
