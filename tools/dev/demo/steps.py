"""The demo's child processes, and what a stop does to them. Imports nothing that is slow."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GO_ON = 'The same command goes on where it was (make demo, or tools/dev/make_demo.py as before).'


def run_tool(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run one of the tools; it hears of a stop through us, once, and saves before it leaves.

    Raises:
        SystemExit: it failed; it has said why.
        KeyboardInterrupt: we were stopped.
    """
    # A session of its own: Ctrl-C reaches the whole group, and a second signal means "at once".
    child = subprocess.Popen([sys.executable, *map(str, command)], cwd=cwd, start_new_session=True)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    if code:
        raise SystemExit(f'{command[0]} ended with status {code}. {GO_ON}')


def until_stopped(run: Callable[[], object]) -> None:
    """Run; Ctrl-C, SIGTERM and SIGHUP end in one line that says how to go on."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C
    try:
        run()
    except KeyboardInterrupt:
        print(f'\nStopped. {GO_ON}', file=sys.stderr)
        raise SystemExit(130) from None
