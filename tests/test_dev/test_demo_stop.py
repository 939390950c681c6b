"""A stopped demo: its child saves first, and one line says how to go on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tool_runs import default_signals

# Stands for the tools: says that it runs, and leaves on SIGTERM as training does.
CHILD = """
import signal, sys, time, pathlib
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('saved').write_text(''), sys.exit(143)))
pathlib.Path('running').write_text('')
time.sleep(60)
"""
PARENT = """
import pathlib
from tools.dev.demo.steps import run_tool, until_stopped
until_stopped(lambda: run_tool('child.py', cwd=pathlib.Path.cwd()))
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT], ids=['SIGTERM', 'Ctrl-C'])
def test_one_line_says_how_to_go_on(number: int, repository: Path, tmp_path: Path) -> None:
    (tmp_path / 'child.py').write_text(CHILD)
    path = f'import sys; sys.path.insert(0, {str(repository)!r})'
    process = subprocess.Popen(
        [sys.executable, '-c', path + PARENT],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    while not (tmp_path / 'running').is_file():
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.strip().splitlines() == [
        'Stopped. The same command goes on where it was (make demo, or tools/dev/make_demo.py as '
        'before).'
    ]
    assert (tmp_path / 'saved').is_file()


def test_a_tool_that_fails_has_said_why(repository: Path, tmp_path: Path) -> None:
    (tmp_path / 'child.py').write_text("import sys; sys.exit('no such data')")
    path = f'import sys; sys.path.insert(0, {str(repository)!r})'
    done = subprocess.run(
        [sys.executable, '-c', path + PARENT], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[0] == 'no such data'
    assert done.stderr.splitlines()[1].startswith('child.py ended with status 1.')
    assert len(done.stderr.splitlines()) == 2
