"""KeyedSampler: order, keys, ranks, and starting in the middle."""

import copy
import pickle

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DATA_SAMPLERS

from s3pt_mm.resume.keyed_sampler import KeyedIndex, KeyedSampler


def sampler_of_rank(size, rank, world_size, **kwargs):
    sampler = KeyedSampler(range(size), seed=5, **kwargs)
    sampler.rank, sampler.world_size = rank, world_size
    return sampler


def keys(sampler):
    return [(int(i), i.seed, i.epoch) for i in sampler]


def test_registered_at_the_root():
    assert DATA_SAMPLERS.get('KeyedSampler') is KeyedSampler


def test_index_survives_pickle_and_copy():
    index = KeyedIndex(7, seed=3, epoch=2)
    for other in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index), copy.copy(index)):
        assert isinstance(other, KeyedIndex)
        assert (other, other.seed, other.epoch) == (7, 3, 2)


def test_key_passes_through_dataset_wrappers():
    class Echo:
        metainfo, _fully_initialized = {}, True

        def full_init(self):
            pass

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return index

        def get_data_info(self, index):
            return index

    from mmengine.dataset import BaseDataset

    class EchoDataset(Echo, BaseDataset):
        def __init__(self):
            self._metainfo = {}

    index = KeyedIndex(6, seed=3, epoch=2)
    concat = ConcatDataset([EchoDataset(), EchoDataset()])[index]
    repeat = RepeatDataset(EchoDataset(), times=2)[index]
    assert (concat, concat.seed, concat.epoch) == (2, 3, 2)
    assert (repeat, repeat.epoch) == (2, 2)
    assert repeat.seed != 3, 'the second showing of an image in an epoch needs other views'


def test_an_epoch_is_a_permutation_that_changes_with_epoch_and_seed():
    sampler = KeyedSampler(range(50), seed=0)
    first = keys(sampler)
    assert sorted(i for i, _, _ in first) == list(range(50))
    assert {(s, e) for _, s, e in first} == {(0, 0)}
    assert keys(sampler) == first
    sampler.set_epoch(1)
    second = keys(sampler)
    assert {e for _, _, e in second} == {1}
    order = [[i for i, _, _ in k] for k in (first, second, keys(KeyedSampler(range(50), seed=1)))]
    assert order[0] != order[1] != order[2] and order[0] != order[2]


def test_without_shuffle_in_order():
    assert [int(i) for i in KeyedSampler(range(4), shuffle=False, seed=0)] == [0, 1, 2, 3]


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('start', [0, 1, 4, 7])
def test_a_start_skips_exactly_that_many_and_only_once(infinite, start):
    def take(sampler, n=7):
        iterator = iter(sampler)
        return [(int(i), i.epoch) for _, i in zip(range(n), iterator, strict=False)]

    sampler = sampler_of_rank(20, 1, 3, infinite=infinite)
    whole = take(sampler, n=7 + start)
    sampler.set_start(start)
    assert take(sampler, n=7) == (whole[start:] if infinite else take(sampler, 7)[start:])
    assert take(sampler, n=7 + start) == whole


@pytest.mark.parametrize('world_size', [2, 4])
@pytest.mark.parametrize('infinite', [False, True])
def test_ranks_deal_the_single_process_batches(world_size, infinite):
    total_batch = 8
    single = iter(sampler_of_rank(40, 0, 1, infinite=infinite))
    ranks = [iter(sampler_of_rank(40, r, world_size, infinite=infinite)) for r in range(world_size)]
    for _ in range(5):
        expected = {int(next(single)) for _ in range(total_batch)}
        got = {int(next(r)) for r in ranks for _ in range(total_batch // world_size)}
        assert got == expected


@pytest.mark.parametrize(('round_up', 'length'), [(True, 4), (False, 3)])
def test_all_ranks_take_equally_many(round_up, length):
    taken = [keys(sampler_of_rank(10, r, 3, round_up=round_up)) for r in range(3)]
    assert [len(t) for t in taken] == [length] * 3
    seen = [i for t in taken for i, _, _ in t]
    assert len(set(seen)) == (10 if round_up else 9)
    assert all(len(sampler_of_rank(10, r, 3, round_up=round_up)) == length for r in range(3))


def test_infinite_passes_change_order_and_epoch():
    iterator = iter(KeyedSampler(range(6), seed=1, infinite=True))
    passes = [[next(iterator) for _ in range(6)] for _ in range(3)]
    assert [sorted(map(int, p)) for p in passes] == [list(range(6))] * 3
    assert [{i.epoch for i in p} for p in passes] == [{0}, {1}, {2}]
    assert passes[0] != passes[1]


def test_clear_errors():
    with pytest.raises(ValueError, match='list is empty.*ann_file'):
        KeyedSampler([], seed=0)
    with pytest.raises(ValueError, match='start at sample 5 of a rank that has 4'):
        KeyedSampler(range(4), seed=0).set_start(5)
