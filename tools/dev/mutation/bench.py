"""Runs tests in forks of a process that has read the heavy libraries, but nothing under test."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.dev.mutation.faults import Fault

# Flags of every run: one worker, no files left, stop at the first failure.
_PYTEST = ('-x', '-q', '-p', 'no:cacheprovider', '-m', 'not slow', '--no-header', '--tb=line')


class Bench:
    """A copy of the checkout in which files are broken and mended again.

    Attributes:
        root: The copy.
    """

    def __init__(self, checkout: Path, root: Path) -> None:
        self.root = root
        shutil.rmtree(root, ignore_errors=True)
        listed = ['git', '-C', str(checkout), 'ls-files', '-co', '--exclude-standard', '-z']
        for name in subprocess.check_output(listed, text=True).rstrip('\0').split('\0'):
            if (checkout / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, root / name)
        os.environ.update(PYTHONPATH=str(root), PYTHONDONTWRITEBYTECODE='1')
        sys.path.insert(0, str(root))
        sys.dont_write_bytecode = True

    def warm(self, modules: Sequence[str]) -> None:
        """Import libraries once, for all forks.

        Raises:
            RuntimeError: One of them brought in code of the rooms under test, or the package was
                read before, from elsewhere than the copy.
        """
        there = sys.modules.get('s3pt_mm')
        if there is not None and self.root not in Path(str(there.__file__)).parents:
            raise RuntimeError(f's3pt_mm was read from {there.__file__}, where nothing is broken')
        for name in modules:
            module = importlib.import_module(name)
            if name.endswith('.compat'):
                module.apply()
        rooms = ('s3pt_mm.method', 's3pt_mm.resume', 's3pt_mm.detection')
        early = [name for name in sys.modules if name.startswith(rooms)]
        if early:
            raise RuntimeError(f'{modules} bring in what is to be broken: {early}')

    def run(
        self, tests: Sequence[str], seconds: float, plugin: Callable[[], Any] | None = None
    ) -> str:
        """'survived' (all passed), 'killed' (a test, or the import of one, failed), 'timeout', or
        'broken': no test was chosen.

        Args:
            tests: pytest's arguments.
            seconds: Limit.
            plugin: Makes a pytest plugin, in the fork.
        """
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.setsid()
            self._in_the_fork(tests, plugin)
        deadline = time.monotonic() + seconds
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        try:
            os.killpg(child, signal.SIGKILL)  # what the tests themselves started goes too
        except ProcessLookupError:
            pass
        if done == (0, 0):
            os.waitpid(child, 0)
            return 'timeout'
        code = os.waitstatus_to_exitcode(done[1])
        return {0: 'survived', 5: 'broken'}.get(code, 'killed')

    def _in_the_fork(self, tests: Sequence[str], plugin: Callable[[], Any] | None) -> None:
        code = 70
        try:
            os.chdir(self.root)
            log = os.open(self.root / 'pytest.log', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1), os.dup2(log, 2)
            import pytest

            code = pytest.main([*_PYTEST, *tests], plugins=[plugin()] if plugin else [])
        finally:
            sys.stdout.flush()
            os._exit(int(code))

    def try_fault(self, fault: Fault, tests: Sequence[str], seconds: float) -> str:
        """Break a file, run tests, mend it; see :meth:`run` for the answer."""
        path = self.root / fault.path
        whole = path.read_text(encoding='utf-8')
        try:
            path.write_text(fault.source(), encoding='utf-8')
            return self.run(tests, seconds)
        finally:
            path.write_text(whole, encoding='utf-8')

    def reach(self, tests: Sequence[str], sources: Sequence[str]) -> dict[str, Any]:
        """Which test runs which line of ``sources`` in its own process, and how long it takes.

        Returns:
            ``seconds``: of each test; ``lines``: file -> line -> tests.

        Raises:
            RuntimeError: A test fails without any fault.
        """
        out = self.root / 'reach.json'
        outcome = self.run(tests, 3600, lambda: _Reach(self.root, sources, out))
        if outcome != 'survived':
            log = (self.root / 'pytest.log').read_text()[-2000:]
            raise RuntimeError(f'{list(tests)} without a fault: {outcome}\n{log}')
        return json.loads(out.read_text(encoding='utf-8'))


class _Reach:
    """pytest plugin: coverage's contexts are the tests."""

    def __init__(self, root: Path, sources: Sequence[str], out: Path) -> None:
        import coverage

        self.files, self.out, self.seconds = [str(root / name) for name in sources], out, {}
        self.coverage = coverage.Coverage(data_file=None, include=self.files, config_file=False)
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        data, lines = self.coverage.get_data(), {}
        for path in self.files:
            found = data.contexts_by_lineno(path)
            lines[path] = {line: [t for t in tests if t] for line, tests in found.items()}
        self.out.write_text(json.dumps(dict(seconds=self.seconds, lines=lines)), encoding='utf-8')
