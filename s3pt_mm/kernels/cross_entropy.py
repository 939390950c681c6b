"""Cross-entropy over very many prototypes on a GPU, in two passes that never write a logit.

For pairs i of a student row y_i and a teacher row z_i, with logits

    s_ik = f_k y_i . v_k + b_k        t_ik = g_k z_i . u_k + c_k,

the loss is ``sum_i a_i (LSE_k s_ik - sum_k softmax(t_i)_k s_ik)``. The first pass walks over tiles
of prototypes with running maxima and sums, as FlashAttention's forward does (arXiv 2205.14135).
The second forms tiles of both logits again and multiplies ``a_i (softmax(s_i) - softmax(t_i))``
with the prototypes (gradient of the rows) and with the rows (gradient of the prototypes). Products
take the inputs' dtype, bf16 or fp16, sums and exponentials are float32. No atomic operation, so a
result repeats bit by bit. Eight products of a pair's logits in place of the plain form's four, and
no pass over logits in memory.

Compiled for A100 and H100 by a test and judged on Triton's interpreter; not yet run on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# fp16 ends at 6e-8: entries of the gradient are brought up to this before they are rounded.
_LIFT = 256.0


class Side(NamedTuple):
    """Rows and prototypes of one network.

    Attributes:
        rows: (T, D).
        weight: (P, D), of the same dtype.
        factor: (P,) float32.
        bias: (P,) float32.
    """

    rows: Tensor
    weight: Tensor
    factor: Tensor
    bias: Tensor


class RowSums(NamedTuple):
    """What the first pass knows of each pair.

    Attributes:
        student: (T,) LSE of the student's logits.
        teacher: (T,) LSE of the teacher's.
        cross: (T,) mean of the student's logits under the teacher's softmax.
        uncentered: (T,) LSE of ``t + center``.
    """

    student: Tensor
    teacher: Tensor
    cross: Tensor
    uncentered: Tensor


@triton.jit
def _load_rows(pointer, index, count, width, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    mask = (index < count)[:, None] & (d < width)[None, :]
    return tl.load(pointer + index[:, None].to(tl.int64) * width + d[None, :], mask=mask, other=0.0)


@triton.jit
def _product(a, b, WIDEN: tl.constexpr):
    """a @ b with float32 sums; Triton's interpreter cannot multiply bf16, only store it."""
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision='ieee')


@triton.jit
def _logits(rows, weight, factor, bias, column, count, WIDEN: tl.constexpr):
    """Tile of logits; -inf beyond the last prototype."""
    inside = column < count
    f = tl.load(factor + column, mask=inside, other=0.0)
    b = tl.load(bias + column, mask=inside, other=-float('inf'))
    return _product(rows, tl.trans(weight), WIDEN) * f[None, :] + b[None, :]


@triton.jit
def _forward_kernel(
    y, v, f, b, z, u, g, c, center, out, pairs, count, width, tiles,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    split = tl.program_id(1)
    ys = _load_rows(y, row, pairs, width, BLOCK_D)
    zs = _load_rows(z, row, pairs, width, BLOCK_D)
    peak_s = tl.full([BM], -float('inf'), tl.float32)
    peak_t = tl.full([BM], -float('inf'), tl.float32)
    peak_u = tl.full([BM], -float('inf'), tl.float32)
    sum_s = tl.zeros([BM], tl.float32)
    sum_t = tl.zeros([BM], tl.float32)
    sum_u = tl.zeros([BM], tl.float32)
    cross = tl.zeros([BM], tl.float32)
    for tile in range(split * tiles, tl.minimum((split + 1) * tiles, tl.cdiv(count, BN))):
        column = tile * BN + tl.arange(0, BN)
        s = _logits(ys, _load_rows(v, column, count, width, BLOCK_D), f, b, column, count, WIDEN)
        t = _logits(zs, _load_rows(u, column, count, width, BLOCK_D), g, c, column, count, WIDEN)

        new = tl.maximum(peak_s, tl.max(s, 1))
        sum_s = sum_s * tl.exp(peak_s - new) + tl.sum(tl.exp(s - new[:, None]), 1)
        peak_s = new

        new = tl.maximum(peak_t, tl.max(t, 1))
        share, shrink = tl.exp(t - new[:, None]), tl.exp(peak_t - new)
        sum_t = sum_t * shrink + tl.sum(share, 1)
        known = tl.where((column < count)[None, :], s, 0.0)
        cross = cross * shrink + tl.sum(share * known, 1)
        peak_t = new

        t += tl.load(center + column, mask=column < count, other=0.0)[None, :]
        new = tl.maximum(peak_u, tl.max(t, 1))
        sum_u = sum_u * tl.exp(peak_u - new) + tl.sum(tl.exp(t - new[:, None]), 1)
        peak_u = new
    place = out + split * 5 * pairs + row
    tl.store(place, peak_s + tl.log(sum_s), mask=row < pairs)
    tl.store(place + pairs, peak_t, mask=row < pairs)
    tl.store(place + 2 * pairs, sum_t, mask=row < pairs)
    tl.store(place + 3 * pairs, cross, mask=row < pairs)
    tl.store(place + 4 * pairs, peak_u + tl.log(sum_u), mask=row < pairs)


@triton.jit
def _gradient(
    ys, vs, zs, us, f, b, g, c, lse_s, lse_t, weight, row, column, pairs, count,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """Tile of d loss / d student logits."""
    # Rows beyond the last have an infinite LSE, hence no probability.
    own = tl.load(lse_s + row, mask=row < pairs, other=float('inf'))
    wanted = tl.load(lse_t + row, mask=row < pairs, other=float('inf'))
    a = tl.load(weight + row, mask=row < pairs, other=0.0)
    s = _logits(ys, vs, f, b, column, count, WIDEN)
    t = _logits(zs, us, g, c, column, count, WIDEN)
    return a[:, None] * (tl.exp(s - own[:, None]) - tl.exp(t - wanted[:, None]))


@triton.jit
def _backward_rows_kernel(
    y, v, f, b, z, u, g, c, lse_s, lse_t, weight, out, pairs, count, width, tiles,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    split = tl.program_id(1)
    ys = _load_rows(y, row, pairs, width, BLOCK_D)
    zs = _load_rows(z, row, pairs, width, BLOCK_D)
    total = tl.zeros([BM, BLOCK_D], tl.float32)
    for tile in range(split * tiles, tl.minimum((split + 1) * tiles, tl.cdiv(count, BN))):
        column = tile * BN + tl.arange(0, BN)
        vs = _load_rows(v, column, count, width, BLOCK_D)
        us = _load_rows(u, column, count, width, BLOCK_D)
        grad = _gradient(
            ys, vs, zs, us, f, b, g, c, lse_s, lse_t, weight, row, column, pairs, count, WIDEN
        )
        grad *= tl.load(f + column, mask=column < count, other=0.0)[None, :]
        total += _product(grad.to(vs.dtype), vs, WIDEN)
    d = tl.arange(0, BLOCK_D)
    place = out + (split * pairs + row)[:, None].to(tl.int64) * width + d[None, :]
    tl.store(place, total, mask=(row < pairs)[:, None] & (d < width)[None, :])


@triton.jit
def _backward_columns_kernel(
    y, v, f, b, z, u, g, c, lse_s, lse_t, weight, out, out_bias, pairs, count, width,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    vs = _load_rows(v, column, count, width, BLOCK_D)
    us = _load_rows(u, column, count, width, BLOCK_D)
    total = tl.zeros([BN, BLOCK_D], tl.float32)
    total_bias = tl.zeros([BN], tl.float32)
    for start in range(0, pairs, BM):
        row = start + tl.arange(0, BM)
        ys = _load_rows(y, row, pairs, width, BLOCK_D)
        zs = _load_rows(z, row, pairs, width, BLOCK_D)
        grad = _gradient(
            ys, vs, zs, us, f, b, g, c, lse_s, lse_t, weight, row, column, pairs, count, WIDEN
        )
        total_bias += tl.sum(grad, 0)
        total += _product(tl.trans(grad).to(ys.dtype), ys, WIDEN)
    d = tl.arange(0, BLOCK_D)
    place = out + column[:, None].to(tl.int64) * width + d[None, :]
    tl.store(place, total, mask=(column < count)[:, None] & (d < width)[None, :])
    tl.store(out_bias + column, total_bias, mask=column < count)


@triton.jit
def _column_sum_kernel(
    z, u, g, c, lse, out, pairs, count, width,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BN + tl.arange(0, BN)
    us = _load_rows(u, column, count, width, BLOCK_D)
    peak = tl.full([BN], -float('inf'), tl.float32)
    total = tl.zeros([BN], tl.float32)
    for start in range(0, pairs, BM):
        row = start + tl.arange(0, BM)
        zs = _load_rows(z, row, pairs, width, BLOCK_D)
        log_p = _logits(zs, us, g, c, column, count, WIDEN)
        log_p -= tl.load(lse + row, mask=row < pairs, other=float('inf'))[:, None]
        new = tl.maximum(peak, tl.max(log_p, 0))
        total = total * tl.exp(peak - new) + tl.sum(tl.exp(log_p - new[None, :]), 0)
        peak = new
    tl.store(out + column, peak + tl.log(total), mask=column < count)


def block_sizes(dtype: torch.dtype, width: int) -> dict[str, int]:
    """Rows, prototypes and width of a tile, warps and stages.

    At width 256 a program takes at most 206 KB of the 227 that an H100's SM has, and 141 of an
    A100's 163, and no kernel leaves its registers for memory (tests compile it for both).
    """
    return dict(
        BM=64,
        BN=64,
        BLOCK_D=max(16, triton.next_power_of_2(width)),
        WIDEN=dtype == torch.bfloat16 and triton.knobs.runtime.interpret,
        num_warps=8,
        num_stages=2,
    )


def _splits(pairs: int, count: int, blocks: dict[str, int], device: torch.device) -> tuple:
    """Grid of the kernels that walk over prototypes, and the tiles of each program."""
    programs = 4  # the interpreter's
    if device.type == 'cuda':
        programs = 2 * torch.cuda.get_device_properties(device).multi_processor_count
    rows, tiles = triton.cdiv(pairs, blocks['BM']), triton.cdiv(count, blocks['BN'])
    each = triton.cdiv(tiles, min(tiles, max(1, programs // max(rows, 1))))
    return (rows, triton.cdiv(tiles, each)), each


def forward(student: Side, teacher: Side, center: Tensor) -> RowSums:
    """The first pass.

    Args:
        student: y, v, f, b.
        teacher: z, u, g, c, the centre subtracted from c.
        center: (P,) float32.
    """
    pairs, (count, width) = len(student.rows), student.weight.shape
    blocks = block_sizes(student.weight.dtype, width)
    grid, tiles = _splits(pairs, count, blocks, student.rows.device)
    parts = center.new_empty(grid[1], 5, pairs)
    if pairs:
        _forward_kernel[grid](
            *student, *teacher, center, parts, pairs, count, width, tiles, **blocks
        )
    own, peak, total, cross, uncentered = parts.unbind(1)
    share = torch.exp(peak - peak.amax(0))
    total, cross = (share * total).sum(0), (share * cross).sum(0)
    return RowSums(
        own.logsumexp(0), peak.amax(0) + total.log(), cross / total, uncentered.logsumexp(0)
    )


def backward(
    student: Side, teacher: Side, sums: RowSums, weight: Tensor, *, need_prototypes: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The second pass.

    Args:
        student: As in :func:`forward`.
        teacher: As in :func:`forward`.
        sums: Its result.
        weight: (T,) float32, the pairs' weights a, not negative.
        need_prototypes: Whether gradients of prototypes and bias are wanted.

    Returns:
        Float32 gradients of the loss: of the rows y (T, D); of ``f_k v_k``, (P, D), that is
        without the factor f; of the bias, (P,).
    """
    pairs, (count, width) = len(student.rows), student.weight.shape
    blocks = block_sizes(student.weight.dtype, width)
    grid, tiles = _splits(pairs, count, blocks, student.rows.device)
    lift = _LIFT / weight.amax().clamp_min(1e-30) if pairs else weight.new_ones(())
    arguments = *student, *teacher, sums.student, sums.teacher, weight * lift
    size = pairs, count, width
    by_row = weight.new_empty(grid[1], pairs, width)
    if pairs:
        _backward_rows_kernel[grid](*arguments, by_row, *size, tiles, **blocks)
    by_row = by_row.sum(0) / lift
    if not need_prototypes:
        return by_row, None, None
    by_weight, by_bias = weight.new_empty(count, width), weight.new_empty(count)
    columns = (triton.cdiv(count, blocks['BN']),)
    _backward_columns_kernel[columns](*arguments, by_weight, by_bias, *size, **blocks)
    return by_row, by_weight.div_(lift), by_bias.div_(lift)


def column_log_sum(teacher: Side, lse: Tensor) -> Tensor:
    """(P,) ``log sum_i softmax(t_i)``.

    Args:
        teacher: z, u, g, c without centre.
        lse: (T,) LSE of its logits.
    """
    count, width = teacher.weight.shape
    blocks = block_sizes(teacher.weight.dtype, width)
    out = torch.full_like(teacher.bias, -torch.inf)
    if len(teacher.rows):
        grid = (triton.cdiv(count, blocks['BN']),)
        _column_sum_kernel[grid](*teacher, lse, out, len(teacher.rows), count, width, **blocks)
    return out
