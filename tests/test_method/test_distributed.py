"""The collectives alone: what one process gives, and what two gloo ranks give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from s3pt_mm.method import distributed
from s3pt_mm.method.algorithms import S3PT
from tests.test_method.test_algorithms.test_methods import batch, make, run_loss
from tests.test_reliability.ranks import run_ranks

ROWS = 3, 0  # of rank 0 and of rank 1: unequal, one of them empty


def rows_of(rank: int) -> Tensor:
    return 10.0 * rank + torch.arange(2.0 * ROWS[rank]).view(-1, 2)


def exercise() -> dict:
    """Every helper on this rank."""
    rank, world = distributed.rank(), distributed.world_size()
    mine = torch.full((2,), float(rank + 1), requires_grad=True)
    total = distributed.sum_over_ranks(mine)
    log = torch.tensor([float(rank), -torch.inf, -torch.inf if rank else 1.0])
    sizes = distributed.sizes_of_ranks(ROWS[rank], 'cpu')
    gathered = distributed.gather_ragged(rows_of(rank), sizes)
    counts = torch.tensor([rank + 5] * (2 - rank))
    counts = distributed.gather_ragged(counts, distributed.sizes_of_ranks(len(counts), 'cpu'))
    nothing = distributed.gather_ragged(torch.zeros(0, 4), [0] * world)
    # A rank's share of a loss: the value of the mean over ranks, the gradient its own.
    weight = torch.tensor(float(rank + 1), requires_grad=True)
    shared = distributed.global_value(3 * weight)
    shared.backward()
    return dict(
        rank=rank,
        world=world,
        total=total.clone(),
        total_has_gradient=total.requires_grad,
        mine=mine.detach(),
        log_sum=distributed.start_logaddexp(log)(),
        gathered=gathered,
        sizes=sizes,
        counts=counts,
        nothing=list(nothing.shape),
        shared=float(shared.detach()),
        gradient=float(weight.grad),
    )


def test_without_a_process_group_each_is_the_identity() -> None:
    found = exercise()
    assert (found['rank'], found['world']) == (0, 1)
    assert torch.equal(found['total'], found['mine']) and not found['total_has_gradient']
    assert found['log_sum'].tolist() == [0.0, -torch.inf, 1.0]
    assert torch.equal(found['gathered'], rows_of(0)) and found['sizes'] == [3]
    assert found['nothing'] == [0, 4]
    assert found['shared'] == found['gradient'] == 3.0


def test_the_sum_is_a_copy() -> None:
    mine = torch.ones(2)
    distributed.sum_over_ranks(mine).add_(1)
    assert mine.tolist() == [1.0, 1.0]


def test_two_ranks(tmp_path: Path) -> None:
    ranks = run_ranks(exercise, 2, tmp_path)
    assert [found['rank'] for found in ranks] == [0, 1]
    nothing = -torch.inf
    logs = torch.tensor([[0.0, nothing, 1.0], [1.0, nothing, nothing]])
    wanted = torch.logsumexp(logs, dim=0)
    for rank, found in enumerate(ranks):
        assert found['world'] == 2
        assert found['total'].tolist() == [3.0, 3.0] and not found['total_has_gradient']
        assert found['mine'].tolist() == [rank + 1.0] * 2  # the input is left alone
        torch.testing.assert_close(found['log_sum'], wanted)
        assert torch.equal(found['gathered'], torch.cat([rows_of(0), rows_of(1)]))
        assert found['sizes'] == [3, 0]
        assert found['counts'].tolist() == [5, 5, 6] and found['counts'].dtype == torch.int64
        assert found['nothing'] == [0, 4]
        assert found['shared'] == 4.5 and found['gradient'] == 3.0


def collectives_of_a_step() -> list[tuple]:
    """Names, shapes and whether they wait, of two S3PT steps on different images."""
    seen: list[tuple] = []

    def watch(name: str) -> None:
        real = getattr(torch.distributed, name)

        def call(*args: Any, **options: Any) -> Any:
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            shapes = [tuple(tensor.shape) for tensor in tensors]
            seen.append((name, shapes, bool(options.get('async_op'))))
            return real(*args, **options)

        setattr(torch.distributed, name, call)

    names = ('all_reduce', 'all_gather', 'broadcast', 'all_gather_object', 'broadcast_object_list')
    for name in (*names, 'gather_object', 'barrier', 'reduce', 'all_gather_into_tensor'):
        watch(name)
    torch.manual_seed(0)
    model = make(S3PT)
    model.init_weights()
    for step in range(2):
        model.epoch = step
        torch.manual_seed(10 * step + distributed.rank())
        losses = run_loss(model, batch())
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        model.update_teacher(0.9)
    return seen


def test_ranks_meet_in_one_order_without_objects_and_centres_do_not_wait(tmp_path: Path) -> None:
    """Ranks with different numbers of objects; DDP's own all-reduce of gradients comes on top."""
    first, second = run_ranks(collectives_of_a_step, 2, tmp_path)
    assert first == second and len(first) > 8
    assert not any('object' in name or name == 'barrier' for name, *_ in first)
    # Two centres of probabilities a step: each a vector of the prototypes, under way meanwhile.
    under_way = [shapes for _, shapes, asynchronous in first if asynchronous]
    assert len([shapes for shapes in under_way if len(shapes[0]) == 1 and shapes[0][0] > 8]) >= 4
