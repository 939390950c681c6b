"""What a loop does beside resuming: the order of each epoch, and who is called when."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from s3pt_mm.resume.checkpoint_files import checksum_path, move_aside, write_checkpoint
from s3pt_mm.resume.data_identity import fingerprint
from s3pt_mm.resume.keyed_sampler import KeyedIndex, KeyedSampler
from s3pt_mm.resume.seeding import SeedFromIndex
from tests.test_reliability.test_exact_resumption import ITER, VALIDATE
from tests.test_reliability.tiny_run import NoisyRows, tiny_config, train


@HOOKS.register_module()
class Witness(Hook):
    """Writes down the calls of a run and the rows that it saw."""

    calls: list = []
    rows: list = []

    def before_train_epoch(self, runner):
        self.calls.append('before epoch')

    def after_train_epoch(self, runner):
        self.calls.append('after epoch')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rows.extend(int(index) for index in data_batch['index'])

    def after_train(self, runner):
        self.calls.append('end')


@pytest.fixture
def witness():
    Witness.calls, Witness.rows = [], []
    return [{'type': 'FollowHook'}, {'type': 'Witness'}]


@pytest.mark.parametrize('stop', [None, 8, 12])
def test_each_epoch_has_its_own_order_and_its_hooks(tmp_path, witness, stop):
    changes = dict(custom_hooks=witness)
    if stop:
        assert not train(tiny_config(tmp_path, **changes), stop_at=stop)
        changes['resume'] = True
    assert train(tiny_config(tmp_path, **changes))
    sampler, expected = KeyedSampler(NoisyRows(), seed=3), []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected += map(int, sampler)
    assert expected[:22] != expected[22:44] != expected[44:]
    assert Witness.rows == expected
    again = ['before epoch'] if stop == 8 else []  # of the epoch that was under way
    whole = ['before epoch', 'after epoch']
    assert Witness.calls == [*whole, *(['before epoch', *again, 'after epoch']), *whole, 'end']


def test_a_run_by_iterations_is_one_epoch_to_its_hooks(tmp_path, witness):
    assert train(tiny_config(tmp_path, custom_hooks=witness, **ITER))
    assert Witness.calls == ['before epoch', 'after epoch', 'end']
    assert len(Witness.rows) == 18 * 4


def test_two_best_checkpoints_are_kept_and_replaced_each(tmp_path, monkeypatch):
    """``save_best`` of two scores: each keeps the one file of its own."""
    from tests.test_reliability.tiny_run import MeanOutput

    scores = iter([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)])
    monkeypatch.setattr(
        MeanOutput,
        'compute_metrics',
        lambda *_: dict(zip(('acc', 'mIoU'), next(scores), strict=True)),
    )
    keep = {'save_best': ['acc', 'mIoU'], 'rule': 'greater', 'max_keep_ckpts': 1}
    assert train(tiny_config(tmp_path, **VALIDATE, **{'default_hooks.checkpoint': keep}))
    found = sorted(path.name for path in tmp_path.glob('best_*.pth'))
    assert found == ['best_acc_epoch_3.pth', 'best_mIoU_epoch_1.pth']
    sums = sorted(path.name for path in tmp_path.glob('best_*.sha256'))
    assert sums == [f'{name}.sha256' for name in found]


def test_a_checkpoint_that_is_moved_aside_takes_its_checksum_along(tmp_path: Path):
    path = tmp_path / 'epoch_1.pth'
    write_checkpoint({'state_dict': {'w': torch.ones(2)}}, path, iteration=1, run='a')
    kept = move_aside(path)
    assert checksum_path(kept).exists() and not checksum_path(path).exists()


def test_an_unknown_data_set_is_known_by_type_and_size():
    class Others(NoisyRows):
        pass

    assert fingerprint(NoisyRows(4)) == fingerprint(NoisyRows(4))
    assert len({fingerprint(data) for data in (NoisyRows(4), NoisyRows(5), Others(4))}) == 3


def test_a_key_seeds_all_generators_and_a_plain_index_none():
    def drawn(index):
        seed = int(SeedFromIndex()({'sample_idx': index})['sample_seed'])
        return seed, random.random(), np.random.rand(), float(torch.rand(1))

    keyed = drawn(KeyedIndex(3, seed=1, epoch=2))
    assert keyed == drawn(KeyedIndex(3, seed=1, epoch=2))
    for other in (KeyedIndex(4, 1, 2), KeyedIndex(3, 2, 2), KeyedIndex(3, 1, 3)):
        assert all(a != b for a, b in zip(keyed, drawn(other), strict=True))
    states = []
    for ask in (False, True):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        first = ask and int(SeedFromIndex()({'sample_idx': 3})['sample_seed'])
        states.append((random.random(), np.random.rand(), float(torch.rand(1))))
    assert states[0] == states[1]
    assert first >= 0
    np.random.seed(5)
    assert int(SeedFromIndex()({'sample_idx': 3})['sample_seed']) == first
    np.random.seed(6)
    assert int(SeedFromIndex()({'sample_idx': 3})['sample_seed']) != first
