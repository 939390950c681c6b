"""SIGKILL at bad moments: the final checkpoint is the uninterrupted run's.

``S3PT_CHAOS_KILLS=20`` kills every run so often, and DINO and CrIBo too; CI kills less.
"""

import io
import multiprocessing
import os
import time
from unittest import mock

import pytest
import torch

from tests.test_reliability.method_runs import small_config
from tests.test_reliability.tiny_run import last_checkpoint, tiny_config, train
from tools.dev.chaos_kills import torment
from tools.dev.compare_checkpoints import compare_checkpoints

KILLS = os.environ.get('S3PT_CHAOS_KILLS')
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(
    ['tests.test_reliability.rank_training', 'tests.test_reliability.method_runs']
)
SAVE_OFTEN = {
    'default_hooks.checkpoint': {'by_epoch': False, 'interval': 1, 'max_keep_ckpts': 2},
    'train_cfg': {'type': 'ExactEpochTrainLoop', 'max_epochs': 20},
    'optim_wrapper.accumulative_counts': 3,
}


SAVE_METHODS_OFTEN = {
    'default_hooks.checkpoint': {'by_epoch': False, 'interval': 1, 'max_keep_ckpts': 2},
    'train_cfg.max_epochs': 4 + int(KILLS or 4),  # of three iterations
    'optim_wrapper.accumulative_counts': 2,
}


def on_a_slow_disk():
    """Half of a checkpoint lies on disk for 0.2 s, so that a kill while saving hits a write."""
    real = torch.save

    def save(content, file):
        whole = io.BytesIO()
        real(content, whole)
        half = len(whole.getvalue()) // 2
        file.write(whole.getvalue()[:half])
        file.flush()
        time.sleep(0.2)
        file.write(whole.getvalue()[half:])

    return mock.patch('torch.save', save)


def resume(folder):
    train(tiny_config(folder, resume=True, **SAVE_OFTEN))


def resume_method(name, root, folder):
    train(small_config(name, root, folder, resume=True, **SAVE_METHODS_OFTEN))


class Forked:
    """A run in a process forked from the server, which has imported everything."""

    def __init__(self, function, *args):
        self._process = CONTEXT.Process(target=self.run, args=(function, *args), daemon=True)
        self._process.start()

    @staticmethod
    def run(function, *args):
        with on_a_slow_disk():
            function(*args)

    def poll(self):
        return self._process.exitcode

    def kill(self):
        self._process.kill()
        self._process.join()


def test_kills_change_no_bit(tmp_path):
    assert train(tiny_config(tmp_path / 'straight', **SAVE_OFTEN))
    folder = tmp_path / 'chaos'
    folder.mkdir()
    wanted = int(KILLS or 8)
    launch = lambda: Forked(resume, folder)
    kills = list(torment(launch, folder, kills=wanted, seed=1, patience=240))
    assert len(kills) == wanted
    assert sum(k.saves for k in kills) >= 5
    assert any(k.caught_saving for k in kills if k.moment == 'saving')
    resume(folder)
    files = [last_checkpoint(tmp_path / name) for name in ('straight', 'chaos')]
    assert compare_checkpoints(*files) == []


@pytest.mark.slow
@pytest.mark.parametrize('method', ['dino', 'cribo', 's3pt'] if KILLS else ['s3pt'])
def test_kills_of_a_shipped_method_change_no_bit(tmp_path, toydrive, method):
    name = f'toydrive/{method}_vitt16.py'
    assert train(small_config(name, toydrive, tmp_path / 'straight', **SAVE_METHODS_OFTEN))
    folder = tmp_path / 'chaos'
    folder.mkdir()
    wanted = int(KILLS or 4)
    launch = lambda: Forked(resume_method, name, toydrive, folder)
    kills = list(torment(launch, folder, kills=wanted, seed=2, patience=240))
    caught = sum(kill.caught_saving for kill in kills)
    print(f'{method}: {len(kills)} kills, {caught} of them left a half-written checkpoint')
    assert len(kills) == wanted and caught
    resume_method(name, toydrive, folder)
    files = [last_checkpoint(tmp_path / name) for name in ('straight', 'chaos')]
    assert compare_checkpoints(*files) == []


class Finished:
    def __init__(self, status):
        self.status = status

    def poll(self):
        return self.status

    def kill(self):
        pass


def test_a_run_that_ends_by_itself_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match='too short for so many kills'):
        list(torment(lambda: Finished(0), tmp_path, kills=3))
    with pytest.raises(RuntimeError, match='status 1.*it failed'):
        list(torment(lambda: Finished(1), tmp_path, kills=3))


def test_a_run_that_hangs_is_an_error(tmp_path):
    with pytest.raises(TimeoutError, match='No checkpoint'):
        list(torment(lambda: Finished(None), tmp_path, kills=3, patience=0.05))
