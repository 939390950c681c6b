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

Compiled for A100 and H100 by a test, judged on Triton's interpreter and, by hand, on an H100.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from s3pt_mm.kernels.cross_entropy_tiles import (
    backward_columns_kernel,
    backward_rows_kernel,
    column_sum_kernel,
    forward_kernel,
)

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
        forward_kernel[grid](
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
        backward_rows_kernel[grid](*arguments, by_row, *size, tiles, **blocks)
    by_row = by_row.sum(0) / lift
    if not need_prototypes:
        return by_row, None, None
    by_weight, by_bias = weight.new_empty(count, width), weight.new_empty(count)
    columns = (triton.cdiv(count, blocks['BN']),)
    backward_columns_kernel[columns](*arguments, by_weight, by_bias, *size, **blocks)
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
        column_sum_kernel[grid](*teacher, lse, out, len(teacher.rows), count, width, **blocks)
    return out
