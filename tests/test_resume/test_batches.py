"""Loading: the model's generators stay untouched, and dead workers are replaced without a trace."""

import os
import random
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from s3pt_mm.resume import batches as batches_module
from s3pt_mm.resume import exact_resume
from s3pt_mm.resume.batches import keyed_batches, one_ahead
from s3pt_mm.resume.keyed_sampler import KeyedSampler
from s3pt_mm.resume.random_state import (
    fenced_randomness,
    get_random_state,
    seed_cpu_generators,
    set_random_state,
)
from tests.test_reliability.tiny_run import tiny_config, train
from tools.dev.compare_checkpoints import compare_checkpoints


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.fixture
def _impatient(monkeypatch):
    """Torch looks after silent workers every 5 s, by a default argument; here every half."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, '__defaults__', (0.5,))


class Drawing(Dataset):
    """Item i is i and three random numbers; may kill its worker or raise when asked for an item."""

    def __init__(self, kill_at=None, raise_at=None, marker=None):
        self.kill_at, self.raise_at, self.marker = kill_at, raise_at, marker

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == self.raise_at:
            raise OSError(f'no such file: image_{int(index)}.jpg')
        if index == self.kill_at and not os.path.exists(self.marker):
            open(self.marker, 'w').close()
            os.kill(os.getpid(), signal.SIGKILL)
        seed_cpu_generators(index.seed, index.epoch, int(index))
        return (int(index), *draw())


def loader(dataset, workers=0, **options):
    sampler = KeyedSampler(dataset, seed=2)
    return DataLoader(dataset, 4, sampler=sampler, num_workers=workers, collate_fn=list, **options)


def all_batches(loader, start=0, **options):
    return list(keyed_batches(loader, start=start, key=(0,), **options))


def test_state_survives_a_round_trip_through_a_file(tmp_path):
    draw()
    torch.save(get_random_state(), tmp_path / 'state.pth')
    expected = draw(), np.random.normal(size=3).tolist()
    draw()
    set_random_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert (draw(), np.random.normal(size=3).tolist()) == expected


def test_the_fence_holds_even_when_something_breaks():
    state = get_random_state()
    expected = draw()
    set_random_state(state)
    with pytest.raises(KeyError), fenced_randomness(1, 2):
        draw()
        raise KeyError
    assert draw() == expected


def test_keys_seed_all_three_generators_independently():
    def numbers(*key):
        with fenced_randomness(*key):
            return draw()

    assert numbers(1, 2) == numbers(1, 2)
    assert all(a != b for a, b in zip(numbers(1, 2), numbers(2, 1), strict=True))


@pytest.mark.parametrize('workers', [0, 2])
def test_loading_leaves_the_models_generators_alone(workers):
    state = get_random_state()
    expected = draw()
    set_random_state(state)
    assert len(all_batches(loader(Drawing(), workers))) == 10
    assert draw() == expected


def test_start_gives_the_rest_of_the_epoch():
    whole = all_batches(loader(Drawing()))
    assert all_batches(loader(Drawing()), start=7) == whole[7:]
    assert [index for index, _ in whole] == list(range(10))


@pytest.mark.usefixtures('_impatient')
@pytest.mark.parametrize('persistent', [False, True])
def test_a_killed_worker_is_replaced_and_the_data_do_not_change(tmp_path, persistent, monkeypatch):
    said = []
    monkeypatch.setattr(batches_module, 'print_log', lambda message, **kwargs: said.append(message))
    whole = all_batches(loader(Drawing()))
    dataset = Drawing(kill_at=int(whole[5][1][2][0]), marker=str(tmp_path / 'killed'))
    lame = loader(dataset, 2, persistent_workers=persistent)
    assert all_batches(lame) == whole
    assert (tmp_path / 'killed').exists()
    assert len(said) == 1 and 'exit code -9) died before batch' in said[0]
    if persistent:  # the loader goes on with the next epoch
        assert len(all_batches(lame)) == 10


@pytest.mark.usefixtures('_impatient')
def test_a_worker_that_dies_between_two_epochs_is_replaced(monkeypatch):
    """A signal to all processes of a group ends it there, too."""
    said = []
    monkeypatch.setattr(batches_module, 'print_log', lambda message, **kwargs: said.append(message))
    lame = loader(Drawing(), 2, persistent_workers=True)
    whole = all_batches(lame)
    lame._iterator._workers[0].kill()
    assert all_batches(lame) == whole
    assert len(said) == 1 and 'exit code -9) died before batch 0' in said[0]


@pytest.mark.usefixtures('_impatient')
def test_workers_that_keep_dying_end_the_run():
    with pytest.raises(RuntimeError, match='died 1 times since batch 0.*num_workers'):
        all_batches(loader(AlwaysDying(), 1), max_worker_restarts=0)


class AlwaysDying(Drawing):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('workers', [0, 1])
def test_an_error_of_the_data_is_not_a_death(workers):
    with pytest.raises(OSError, match='image_7.jpg'):
        all_batches(loader(Drawing(raise_at=7), workers))


def test_a_dying_worker_does_not_interrupt_the_step():
    """Torch's SIGCHLD handler, which raises wherever the main thread is, is out of the way."""
    batches = keyed_batches(loader(Drawing(), 1), start=0, key=(0,))
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    batches.close()


def test_one_ahead_sends_each_batch_before_the_one_in_front_is_done():
    story = []

    def batches():
        for index in range(3):
            story.append(f'read {index}')
            yield index, index
        raise ValueError('a torn file')

    with pytest.raises(ValueError, match='torn'):
        for index, batch in one_ahead(batches(), lambda batch: story.append(f'send {batch}')):
            assert batch is None  # what send gives
            story.append(f'step {index}')
    # The error of the fourth batch does not cost the third its step.
    assert story == [
        *('read 0', 'send 0', 'read 1', 'send 1', 'step 0', 'read 2', 'send 2'),
        *('step 1', 'step 2'),
    ]


@pytest.mark.parametrize('kind', ['epochs', 'iterations'])
def test_reading_ahead_leaves_a_run_and_its_resumption_exact(tmp_path, monkeypatch, kind):
    changes = {}
    if kind == 'iterations':
        changes['train_cfg'] = {'type': 'ExactIterTrainLoop', 'max_iters': 14}
        changes['default_hooks.checkpoint.by_epoch'] = False
        changes['default_hooks.checkpoint.interval'] = 7
    last = 'epoch_3.pth' if kind == 'epochs' else 'iter_14.pth'
    assert train(tiny_config(tmp_path / 'plain', **dict(changes)))
    monkeypatch.setattr(
        exact_resume,
        'keyed_batches',
        lambda *args, **options: one_ahead(keyed_batches(*args, **options), lambda batch: batch),
    )
    assert not train(tiny_config(tmp_path / 'ahead', **dict(changes)), stop_at=8)
    assert train(tiny_config(tmp_path / 'ahead', resume=True, **dict(changes)))
    assert compare_checkpoints(tmp_path / 'plain' / last, tmp_path / 'ahead' / last) == []
