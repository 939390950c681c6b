"""Signals save and leave; a second one acts at once."""

import os
import signal
import subprocess
import sys

import pytest

from s3pt_mm.resume import leaving
from s3pt_mm.resume.leaving import ExitSignals
from tests.test_reliability.tiny_run import tiny_config, train
from tests.tool_runs import default_signals

SENDS = """
import os, signal, sys
from pathlib import Path
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tests.test_reliability.tiny_run import tiny_config, train
@HOOKS.register_module()
class Send(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 7:
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
cfg = tiny_config(Path(sys.argv[1])); cfg.custom_hooks.append(dict(type='Send'))
from mmengine.runner import Runner
Runner.from_cfg(cfg).train()
"""


@pytest.mark.parametrize('name', ['SIGINT', 'SIGHUP'])
def test_terminal_signals_save(tmp_path, repository, name):
    command = [sys.executable, '-c', SENDS, str(tmp_path), name]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, preexec_fn=default_signals
    )
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert (tmp_path / 'iter_8.pth').is_file() and not (tmp_path / '.run.lock').exists()
    assert train(tiny_config(tmp_path, resume=True))


@pytest.fixture
def seen():
    """Signals that reach the handler that stood before ours."""
    got = []
    before = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, frame: got.append(number))
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved, however busy the machine."""
    now = [100.0]
    monkeypatch.setattr(leaving.time, 'monotonic', lambda: now[0])
    return now


def test_the_same_signal_again_acts_at_once(seen, clock):
    signals = ExitSignals(['SIGHUP', 'SIGTERM'])
    signals.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    clock[0] += 1.9
    os.kill(os.getpid(), signal.SIGTERM)  # within two seconds: torchrun's, after the terminal's
    assert signals.received == signal.SIGHUP and seen == []
    os.kill(os.getpid(), signal.SIGHUP)
    assert seen == [signal.SIGHUP]


def test_another_signal_later_acts_at_once(seen, clock):
    signals = ExitSignals(['SIGHUP', 'SIGTERM'])
    signals.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    clock[0] += 2.1
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGTERM]


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = ExitSignals(['SIGHUP'])
        signals.listen()
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
