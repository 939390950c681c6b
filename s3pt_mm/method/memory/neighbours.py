"""Exact nearest-neighbour search and the cycle-consistency check."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from s3pt_mm.method.memory.object_queue import ObjectQueue
from s3pt_mm.method.row_limits import padding, row_limit

# Queue rows widened and multiplied at a time on a CPU: bounds memory, does not change the result.
_ROWS = 8192


class Neighbours(NamedTuple):
    """Neighbours in the queue of the objects of one view.

    Attributes:
        positions: (n,) ring position of each object's nearest neighbour.
        consistent: (n,) bool, True where the way back ends at the object it left from.
    """

    positions: Tensor
    consistent: Tensor


@torch.no_grad()
def cycle_consistent_neighbours(
    outgoing: Tensor,
    returning: Tensor,
    queue: ObjectQueue,
    *,
    view: int,
    offset: int = 0,
    memory: str | float = 'auto',
    fuse: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Neighbours:
    """Nearest queue object of each object, kept if the other view leads back (CrIBo, section 3.3).

    Object i of view a finds j, its nearest by cosine among the queue's view-a vectors; the queue's
    *other*-view vector of j finds its nearest among this batch's other-view objects. If that
    is i again, i is cycle-consistent.

    Args:
        outgoing: (n, d) this rank's objects of view a.
        returning: (n_all, d) the batch's objects of the other view, all ranks in rank order.
        queue: The memory, before this batch is pushed.
        view: a, 0 or 1.
        offset: Index in ``returning`` of this rank's first object.
        memory: For similarities that exist at a time: 'auto' or gigabytes
            (:func:`~s3pt_mm.method.row_limits.row_limit`).
        fuse: :func:`largest`, compiled: one pass over the similarities in place of three.

    Returns:
        Positions and consistency; with an empty queue no object is consistent.
    """
    if len(outgoing) == 0 or not queue.spans():
        return Neighbours(
            torch.zeros(len(outgoing), dtype=torch.int64, device=outgoing.device),
            torch.zeros(len(outgoing), dtype=torch.bool, device=outgoing.device),
        )
    with torch.autocast(outgoing.device.type, enabled=False):
        chunk = row_limit(
            memory,
            outgoing.device,
            on_cpu=_ROWS,
            bytes_per_row=8 * (len(outgoing) + outgoing.shape[1]),
        )
        positions = _nearest_in_queue(outgoing, queue, view, chunk, fuse)
        back = F.normalize(queue.take(1 - view, positions).to(returning), dim=1)
        ends = (back @ F.normalize(returning, dim=1).T).argmax(dim=1)
    origin = torch.arange(len(outgoing), device=outgoing.device) + offset
    return Neighbours(positions, ends == origin)


def _nearest_in_queue(
    objects: Tensor, queue: ObjectQueue, view: int, chunk: int, fuse: Callable | None
) -> Tensor:
    """(n,) ring position of the largest cosine, in chunks of the queue's rows."""
    count, extra = len(objects), padding(len(objects), objects.device)
    if extra:
        objects = F.pad(objects, (0, 0, 0, extra))
    # The objects' own norms do not move a row's maximum.
    halves = None
    if objects.is_cuda and queue.objects.dtype == torch.float16:
        halves = split_halves(F.normalize(objects, dim=1))
        chunk = chunk * 2  # nothing is widened
    best = objects.new_full((len(objects),), -torch.inf)
    where = torch.zeros(len(objects), dtype=torch.int64, device=objects.device)
    limit = min(chunk, len(queue))
    # One buffer for all chunks: fresh pages cost more than widening the numbers.
    wide = objects.new_empty(limit if halves is None else 0, objects.shape[1])
    for begin, end in queue.spans():
        for start in range(begin, end, limit):
            stop = min(start + limit, end)
            rows = queue.objects[view, start:stop]
            if halves is None:
                similarity = objects @ wide[: stop - start].copy_(rows).T
            else:
                similarity = half_products(halves, rows)
            norms = queue.inverse_norms[view, start:stop]
            if fuse is None:
                value, index = similarity.mul_(norms).max(dim=1)
            else:
                value, index = fuse(similarity, norms)
            better = value > best
            best = torch.where(better, value, best)
            where = torch.where(better, index + start, where)
    return where[:count]


def split_halves(unit: Tensor) -> Tensor:
    """(n, d) rows of norm 1 -> (n, 2 d) float16, two halves that sum to 1024 times them.

    Of a number x the first half rounds 1024 x to 11 bits, the second what is left to 11 more. 1024
    keeps the second above float16's subnormals for all |x| over 2e-5, and changes no order.
    """
    scaled = unit.float() * 1024
    high = scaled.half()
    return torch.cat([high, (scaled - high).half()], dim=1)


def half_products(halves: Tensor, rows: Tensor) -> Tensor:
    """(n, 2 d) :func:`split_halves` and (m, d) float16 -> (n, m) float32 products of their sum.

    The tensor cores multiply halves exactly and add in float32, so the error is that of a float32
    product but for ``2^-22 |x| |row|``, under float32's own ``d`` roundings of ``2^-24`` for
    d > 4. One product of twice the length: the (n, m) numbers are written once.
    """
    rows = torch.cat([rows, rows], dim=1)
    if not rows.is_cuda:
        return halves.float() @ rows.float().T
    return torch.mm(halves, rows.T, out_dtype=torch.float32)


def largest(similarity: Tensor, inverse_norms: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m) products and (m,) -> largest cosine of each row (n,) and where (n,)."""
    value, index = (similarity * inverse_norms).max(dim=1)
    return value, index
