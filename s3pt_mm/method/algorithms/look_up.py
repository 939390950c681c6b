"""A step's objects meet those of other ranks, and the memory is asked for their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from s3pt_mm.common.host import fetch
from s3pt_mm.method import distributed
from s3pt_mm.method.memory import Neighbours, ObjectQueue, cycle_consistent_neighbours


class LookUp(NamedTuple):
    """The teacher's objects of all ranks, and what the memory answered to this rank's.

    Attributes:
        everybody: (2, n_all, d), in rank order.
        per_image: Of each rank (B,) objects of its images, on the host.
        neighbours: Of the own objects, fields (2, n); None where nobody asked.
        consistent: Waits for ``neighbours.consistent`` on the host, and gives it.
    """

    everybody: Tensor
    per_image: Sequence[Tensor]
    neighbours: Neighbours | None = None
    consistent: Callable[[], Tensor] | None = None


@torch.no_grad()
def look_up(
    objects: Tensor,
    per_image: Sequence[Tensor],
    queue: ObjectQueue,
    *,
    search: bool = True,
    memory: str | float = 'auto',
    fuse: Callable | None = None,
) -> LookUp:
    """Gather all ranks' objects and find neighbours, before this batch is pushed.

    Nobody waits: the answer is on its way to the host when this returns.

    Args:
        objects: (2, n, d) this rank's objects of both views.
        per_image: Of each rank (B,) objects of its images, on the host.
        queue: The memory.
        search: Whether neighbours are wanted.
        memory, fuse: See :func:`~s3pt_mm.method.memory.cycle_consistent_neighbours`.
    """
    sizes = [int(rank.sum()) for rank in per_image]
    everybody = distributed.gather_ragged(objects.transpose(0, 1), sizes).transpose(0, 1)
    if not search:
        return LookUp(everybody, per_image)
    offset = sum(sizes[: distributed.rank()])
    neighbours = cycle_consistent_neighbours(
        objects, everybody, queue, offset=offset, memory=memory, fuse=fuse
    )
    return LookUp(everybody, per_image, neighbours, fetch(neighbours.consistent))
