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
    """Neighbours in the queue of the objects of both views.

    Attributes:
        positions: (2, n) ring position of each object's nearest neighbour.
        consistent: (2, n) bool, True where the way back ends at the object it left from.
    """

    positions: Tensor
    consistent: Tensor


@torch.no_grad()
def cycle_consistent_neighbours(
    outgoing: Tensor,
    returning: Tensor,
    queue: ObjectQueue,
    *,
    offset: int = 0,
    memory: str | float = 'auto',
    fuse: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Neighbours:
    """Nearest queue object of each object, kept if the other view leads back (CrIBo, section 3.3).

    Object i of view a finds j, its nearest by cosine among the queue's view-a vectors; the queue's
    *other*-view vector of j finds its nearest among this batch's other-view objects. If that
    is i again, i is cycle-consistent. Both views leave and return.

    Args:
        outgoing: (2, n, d) this rank's objects.
        returning: (2, n_all, d) the batch's objects, all ranks in rank order.
        queue: The memory, before this batch is pushed.
        offset: Index in ``returning`` of this rank's first object.
        memory: For similarities that exist at a time: 'auto' or gigabytes
            (:func:`~s3pt_mm.method.row_limits.row_limit`).
        fuse: :func:`largest`, compiled: one pass over the similarities in place of three.

    Returns:
        Positions and consistency; with an empty queue no object is consistent.
    """
    count = outgoing.shape[1]
    if count == 0 or not queue.spans():
        nowhere = torch.zeros(2, count, dtype=torch.int64, device=outgoing.device)
        return Neighbours(nowhere, nowhere.bool())
    with torch.autocast(outgoing.device.type, enabled=False):
        chunk = row_limit(
            memory,
            outgoing.device,
            on_cpu=_ROWS,
            bytes_per_row=8 * (count + outgoing.shape[2]),
        )
        positions = _nearest_in_queue(outgoing, queue, chunk, fuse)
        # In the order of the views in which they return; their norms move no maximum either.
        back = torch.stack([queue.take(0, positions[1]), queue.take(1, positions[0])])
        here = F.normalize(returning, dim=2).transpose(1, 2)
        ends = (back.to(returning) @ here).argmax(dim=2)
    origin = torch.arange(offset, offset + count, device=outgoing.device)
    return Neighbours(positions, (ends == origin).flip(0))


def _nearest_in_queue(
    objects: Tensor, queue: ObjectQueue, chunk: int, fuse: Callable | None
) -> Tensor:
    """(2, n) ring position of the largest cosine, in chunks of the queue's rows."""
    count = objects.shape[1]
    extra = padding(count, objects.device)
    if extra:
        objects = F.pad(objects, (0, 0, 0, extra))
    # The objects' own norms do not move a row's maximum.
    halves = None
    if objects.is_cuda and queue.objects.dtype == torch.float16:
        halves = split_halves(F.normalize(objects, dim=2))
        chunk = chunk * 2  # nothing is widened
    limit = min(chunk, len(queue))
    pieces = [
        (start, min(start + limit, end))
        for begin, end in queue.spans()
        for start in range(begin, end, limit)
    ]
    # One buffer for all chunks: fresh pages cost more than widening the numbers.
    wide = objects.new_empty(limit if halves is None else 0, objects.shape[2])
    values, places = [], []
    for view in (0, 1):
        for start, stop in pieces:
            rows = queue.objects[view, start:stop]
            if halves is None:
                similarity = objects[view] @ wide[: stop - start].copy_(rows).T
            else:
                similarity = half_products(halves[view], rows)
            norms = queue.inverse_norms[view, start:stop]
            if fuse is None:
                value, index = similarity.mul_(norms).max(dim=1)
            else:
                value, index = fuse(similarity, norms)
            values.append(value)
            places.append(index + start)
    # Of equals the first.
    best = torch.stack(values).unflatten(0, (2, -1)).argmax(dim=1, keepdim=True)
    return torch.stack(places).unflatten(0, (2, -1)).gather(1, best).squeeze(1)[:, :count]


def split_halves(unit: Tensor) -> Tensor:
    """(..., d) rows of norm 1 -> (..., 2 d) float16, two halves that sum to 1024 times them.

    Of a number x the first half rounds 1024 x to 11 bits, the second what is left to 11 more. 1024
    keeps the second above float16's subnormals for all |x| over 2e-5, and changes no order.
    """
    scaled = unit.float() * 1024
    high = scaled.half()
    return torch.cat([high, (scaled - high).half()], dim=-1)


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
