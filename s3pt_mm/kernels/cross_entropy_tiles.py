"""Triton kernels of :mod:`s3pt_mm.kernels.cross_entropy`; its first lines name the letters."""

from __future__ import annotations

import triton
import triton.language as tl


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
def forward_kernel(
    y, v, f, b, z, u, g, c, center, out, pairs, count, width, tiles,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Both LSEs and the cross term of a block of pairs over a share of the prototypes."""
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
def backward_rows_kernel(
    y, v, f, b, z, u, g, c, lse_s, lse_t, weight, out, pairs, count, width, tiles,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of student rows over a share of the prototypes."""
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
def backward_columns_kernel(
    y, v, f, b, z, u, g, c, lse_s, lse_t, weight, out, out_bias, pairs, count, width,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of prototypes and of their bias over all pairs."""
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
def column_sum_kernel(
    z, u, g, c, lse, out, pairs, count, width,
    BM: tl.constexpr, BN: tl.constexpr, BLOCK_D: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Logarithm of the summed probabilities of a block of prototypes over all pairs."""
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
