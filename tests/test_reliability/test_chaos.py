"""SIGKILL at bad moments: the final checkpoint is the uninterrupted run's."""

import multiprocessing

import pytest

from s3pt_mm.engine.chaos import torment
from s3pt_mm.engine.compare_checkpoints import compare_checkpoints
from tests.test_reliability.tiny_run import last_checkpoint, tiny_config, train

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(
    ['tests.test_reliability.rank_training', 'tests.test_reliability.tiny_run']
)
SAVE_OFTEN = {
    'default_hooks.checkpoint': {'by_epoch': False, 'interval': 1, 'max_keep_ckpts': 2},
    'train_cfg': {'type': 'ExactEpochTrainLoop', 'max_epochs': 20},
    'optim_wrapper.accumulative_counts': 3,
}


def resume(folder):
    train(tiny_config(folder, resume=True, **SAVE_OFTEN))


class Forked:
    """A run in a process forked from the server, which has imported everything."""

    def __init__(self, folder):
        self._process = CONTEXT.Process(target=resume, args=(folder,), daemon=True)
        self._process.start()

    def poll(self):
        return self._process.exitcode

    def kill(self):
        self._process.kill()
        self._process.join()


def test_eight_kills_change_no_bit(tmp_path):
    assert train(tiny_config(tmp_path / 'straight', **SAVE_OFTEN))
    folder = tmp_path / 'chaos'
    folder.mkdir()
    kills = list(torment(lambda: Forked(folder), folder, kills=8, seed=1, patience=60))
    assert len(kills) == 8
    assert sum(k.saves for k in kills) >= 5
    assert any(k.caught_saving for k in kills), 'no kill hit the writing of a checkpoint'
    resume(folder)
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
