"""Whose checkpoints lie in a folder, which is newest, and who may work there."""

import json
import os
import time

import pytest
import torch

from s3pt_mm.common.processes import machine
from s3pt_mm.resume import run_lock
from s3pt_mm.resume.checkpoint_files import CheckpointError, describe
from s3pt_mm.resume.run_lock import RunLock
from tests.test_common.test_files import limited
from tests.test_reliability.tiny_run import last_checkpoint, tiny_config, train

KEEP_ONE = {'default_hooks.checkpoint.max_keep_ckpts': 1}


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def test_a_new_run_in_a_used_folder_takes_nothing_from_it(tmp_path):
    assert train(tiny_config(tmp_path, **KEEP_ONE))
    finished = (tmp_path / 'epoch_3.pth').read_bytes()
    torch.save({'meta': {'iter': 100_000}}, tmp_path / 'epoch_100.pth')  # stock mmengine's
    assert not train(tiny_config(tmp_path, **KEEP_ONE), stop_at=14)
    assert names(tmp_path) == ['epoch_100.pth', 'epoch_3.pth', 'iter_14.pth']
    assert (tmp_path / 'epoch_3.pth').read_bytes() == finished
    # --resume goes on with the run that was stopped, not with the finished one.
    assert train(tiny_config(tmp_path, resume=True, **KEEP_ONE))
    assert (tmp_path / 'epoch_3.kept_1.pth').read_bytes() == finished
    assert names(tmp_path) == ['epoch_100.pth', 'epoch_3.kept_1.pth', 'epoch_3.pth']


def test_a_clock_that_was_ahead_deletes_nothing(tmp_path, monkeypatch):
    ahead = {'default_hooks.checkpoint': dict(by_epoch=False, interval=2, max_keep_ckpts=2)}
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, 'time', lambda: real() + 3600)
    monkeypatch.setattr(time, 'time_ns', lambda: real_ns() + 3600 * 10**9)
    assert not train(tiny_config(tmp_path, **ahead), stop_at=6)
    for path in tmp_path.glob('*.pth*'):
        os.utime(path, (real() + 3600, real() + 3600))
    monkeypatch.undo()
    assert train(tiny_config(tmp_path, resume=True, **ahead))
    assert names(tmp_path) == ['iter_16.pth', 'iter_18.pth']


def test_going_on_from_an_earlier_checkpoint_is_another_run(tmp_path):
    """Else the old branch's later files would be taken for the newest."""
    assert train(tiny_config(tmp_path))
    named = {'resume': True, 'load_from': str(tmp_path / 'epoch_1.pth')}
    assert not train(tiny_config(tmp_path, **named), stop_at=8)
    assert describe(tmp_path / 'iter_8.pth').run != describe(tmp_path / 'epoch_3.pth').run
    assert not train(tiny_config(tmp_path, resume=True), stop_at=10)
    assert last_checkpoint(tmp_path).name == 'iter_10.pth'
    assert describe(tmp_path / 'iter_10.pth').run == describe(tmp_path / 'iter_8.pth').run


def hold(folder, **changes):
    """A lock as another process would write it."""
    lock = RunLock(folder)
    holder = {**json.loads(lock._me), **changes}
    lock.path.write_text(json.dumps(holder))
    return lock


def test_two_runs_in_one_folder(tmp_path):
    hold(tmp_path, process=1, started=run_lock.started(1), host='here')
    with pytest.raises(CheckpointError, match=r'in use by process 1 on here.*--work-dir'):
        train(tiny_config(tmp_path))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ('holder', 'seconds_ago', 'gone'),
    [
        ({'process': 2**22 + 1}, 0, True),  # this machine's, and there is no such process
        ({'process': 2**70}, 0, True),
        ({'started': 'earlier'}, 0, True),  # the number is another process's by now
        ({'machine': 'other-00000000', 'process': 2**22 + 1}, 60, False),
        ({'machine': 'other-00000000'}, 3600, True),
    ],
)
def test_a_lock_whose_run_is_gone_is_taken(tmp_path, holder, seconds_ago, gone):
    lock = hold(tmp_path, **holder)
    then = time.time() - seconds_ago
    os.utime(lock.path, (then, then))
    if gone:
        lock.acquire()
        assert json.loads(lock.path.read_text())['machine'] == machine()
        lock.release()
        assert os.listdir(tmp_path) == []
    else:
        with pytest.raises(CheckpointError, match='last sign of life is 6'):
            lock.acquire()


def test_a_run_that_lost_its_folder_writes_nothing(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.check()
    hold(tmp_path, process=1, host='there')
    with pytest.raises(CheckpointError, match='taken over by process 1 on there'):
        lock.check()
    lock.release()
    assert lock.path.exists()  # the other's


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, 'BEAT', 0.01)
    lock = RunLock(tmp_path)
    lock.acquire()
    os.utime(lock.path, (0, 0))
    while lock.path.stat().st_mtime == 0:  # the test run's own limit ends this if it never comes
        time.sleep(0.01)
    lock.release()


@pytest.mark.parametrize(
    'text', ['', '[]', '5', '{}', '{"process": Infinity, "started": "", "machine": "%s"}']
)
def test_a_garbled_lock_is_one_of_a_run_that_starts(tmp_path, text):
    lock = RunLock(tmp_path)
    lock.path.write_text(text.replace('%s', machine()))
    with pytest.raises(CheckpointError, match='in use by .*just starting'):
        lock.acquire()


def test_a_full_disk_leaves_no_empty_lock(tmp_path):
    """It would keep the folder for ten minutes after room was made."""
    with pytest.raises(OSError, match='File too large'):
        limited(RunLock(tmp_path).acquire, limit=10)
    assert os.listdir(tmp_path) == []
