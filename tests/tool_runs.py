"""The scripts of ``tools/`` in tests: as modules, and as commands."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType


def default_signals() -> None:
    """``preexec_fn`` of children that a test signals: a background job's ignored ones are not."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def load_tool(repository: Path, name: str) -> ModuleType:
    """``tools/<name>.py`` as a module; ``name`` may have folders."""
    path = repository / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(repository: Path, *command: object) -> str:
    """Runs ``python *command`` in the checkout, which must succeed; all that it printed."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
