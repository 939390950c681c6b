"""A sampler whose order and randomness depend on (seed, epoch, index) and on nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

# A repeated data set shows one image several times an epoch; each repetition needs its own views.
_REPETITION_STRIDE = 1_000_003


class KeyedIndex(int):
    """The index of a sample that also says with which randomness to prepare it.

    It is an ``int`` everywhere. It survives pickling (worker processes) and copying, and the two
    operations by which data-set wrappers translate indices: a difference (``ConcatDataset``) keeps
    the key; a remainder (``RepeatDataset``) keeps the epoch and moves the seed by the repetition.

    Args:
        index: Position in the data set.
        seed: Seed of the run.
        epoch: Pass over the data set, from 0.
    """

    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int = 0, epoch: int = 0) -> KeyedIndex:
        """See the class."""
        self = super().__new__(cls, index)
        self.seed = int(seed)
        self.epoch = int(epoch)
        return self

    def __reduce__(self) -> tuple[type[KeyedIndex], tuple[int, int, int]]:
        return KeyedIndex, (int(self), self.seed, self.epoch)

    def __sub__(self, other: int) -> KeyedIndex:
        return KeyedIndex(int(self) - int(other), self.seed, self.epoch)

    def __mod__(self, other: int) -> KeyedIndex:
        repetition, index = divmod(int(self), int(other))
        return KeyedIndex(index, self.seed + _REPETITION_STRIDE * repetition, self.epoch)

    def __repr__(self) -> str:
        return f'KeyedIndex({int(self)}, seed={self.seed}, epoch={self.epoch})'


@DATA_SAMPLERS.register_module()
class KeyedSampler(Sampler):
    """Yields :class:`KeyedIndex` objects; can start anywhere in an epoch at no cost.

    The order of epoch e is one permutation drawn from (seed, e), dealt to the ranks in turn, as
    mmengine's ``DefaultSampler`` deals: the i-th batch of all ranks together holds the same samples
    as the i-th batch of a single process with the total batch size.

    Args:
        dataset: The data set; only its length is read.
        shuffle: Permute each epoch; otherwise the order is 0, 1, 2, ...
        seed: Seed of order and keys, equal on all ranks. ``None`` draws one and shares it.
        round_up: All ranks must take equally many steps. ``True`` repeats the first samples of the
            permutation to fill up; ``False`` leaves its last few out of this epoch.
        infinite: An endless stream of passes, for iteration-based runs (a batch may straddle two
            passes; the key's epoch is the pass). ``round_up`` has no meaning then.
            ``ExactIterTrainLoop`` switches it on by itself.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        infinite: bool = False,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else int(seed)
        self.round_up = round_up
        self.infinite = infinite
        self.epoch = 0
        self._start = 0
        if self.size == 0:
            raise ValueError(
                f'{type(dataset).__name__} is empty, so there is nothing to sample; check its '
                'ann_file, data_root and filters.'
            )
        if not infinite and len(self) == 0:
            raise ValueError(
                f'{self.size} samples cannot be dealt to {self.world_size} ranks with '
                'round_up=False; use fewer ranks or round_up=True.'
            )

    def __len__(self) -> int:
        """Samples of this rank in one epoch, whatever the start."""
        if self.round_up or self.infinite:
            return math.ceil(self.size / self.world_size)
        return self.size // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the permutation of the next iteration (no effect on an infinite stream)."""
        self.epoch = int(epoch)

    def set_start(self, start: int) -> None:
        """Leaves out the first ``start`` samples of this rank in the next iteration, and only
        then."""
        if start < 0 or (not self.infinite and start > len(self)):
            raise ValueError(
                f'cannot start at sample {start} of a rank that has {len(self)}; was the '
                f'checkpoint '
                'written with another data set or number of ranks?'
            )
        self._start = int(start)

    def __iter__(self) -> Iterator[KeyedIndex]:
        start, self._start = self._start, 0
        position = start * self.world_size + self.rank
        if self.infinite:
            while True:
                epoch, offset = divmod(position, self.size)
                order = self._order(epoch)
                for place in range(offset, self.size, self.world_size):
                    yield KeyedIndex(int(order[place]), self.seed, epoch)
                    position += self.world_size
        else:
            order, epoch = self._order(self.epoch), self.epoch
            for place in range(position, len(self) * self.world_size, self.world_size):
                yield KeyedIndex(int(order[place % self.size]), self.seed, epoch)

    def _order(self, epoch: int) -> torch.Tensor:
        """The permutation of one epoch, (size,) int64."""
        if not self.shuffle:
            return torch.arange(self.size)
        # SeedSequence mixes: seed 0 in epoch 1 must not be seed 1 in epoch 0.
        key = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(key >> np.uint64(1)))
        return torch.randperm(self.size, generator=generator)
