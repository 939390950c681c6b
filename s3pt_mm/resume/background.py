"""Writing a checkpoint while training goes on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from mmengine.runner import Runner


def collect(runner: Runner, **kwargs: Any) -> dict[str, Any]:
    """What ``runner.save_checkpoint`` would write, on the CPU; parts are shared with the model.

    Args:
        runner: The runner; its hooks' ``before_save_checkpoint`` are called.
        kwargs: As ``save_checkpoint``'s.
    """
    found: list[dict[str, Any]] = []
    with mock.patch('mmengine.runner.runner.save_checkpoint', lambda c, *_, **__: found.append(c)):
        runner.save_checkpoint('', '', **kwargs)
    return found[0]


def host_copy(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that training does not change."""
    return copy.deepcopy(dict(content))


class BackgroundWriter:
    """Runs one writing at a time in a thread that a normal exit of the program waits for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Begin; :meth:`finish` comes first."""
        self._thread = threading.Thread(target=self._run, args=(write,), name='checkpoint')
        self._thread.start()

    def finish(self) -> Exception | None:
        """Wait for the writing that is under way. Returns what went wrong with it, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        return error

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            self._error = error
