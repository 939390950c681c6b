"""Attention with dropout on a CPU, in blocks that stay in the cache.

torch has no fused attention with dropout there: its plain form writes, drops and keeps a (queries x
keys) matrix a head. Plain twin: ``scaled_dot_product_attention``, with which a whole training step
of PETR's head takes 3.3 times as long (docs/detection.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_BLOCK = (1024, 384)
"""Queries and keys of a block of weights: 1.5 megabytes, which a processor's cache holds."""
_POOL = 2**20
"""Random bits drawn for one call."""
_LEVELS = 2**16
_SAFE = 57.0
"""Binary logits up to this size are taken as they are: 2^57 is far from float32's ends."""
_LN_2 = math.log(2)
_PEAK_ROWS = 64


def keep_mask(count: int, drop_prob: float) -> tuple[Tensor, float]:
    """``count`` random bits, True with probability 1 - drop_prob to 1/65536, and that probability.

    Four 16-bit numbers are cut from each random 64-bit integer: a fifth of the time of
    ``bernoulli_``.
    """
    cut = round(drop_prob * _LEVELS)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[:count] >= cut - _LEVELS // 2, 1 - cut / _LEVELS


class _Blocks:
    """The (queries x keys) weights of every head in blocks, each with its own dropout bits.

    Args:
        size: (heads, queries, keys).
    """

    def __init__(self, size: tuple[int, int, int]) -> None:
        heads, *lengths = size
        rows, columns = (
            [min(step, length - start) for start in range(0, length, step)]
            for length, step in zip(lengths, _BLOCK, strict=True)
        )
        # Place of a block (head, its queries, its keys) and its shape.
        self.blocks = [
            ((head, row, column), (rows[row], columns[column]))
            for head in range(heads)
            for column in range(len(columns))
            for row in range(len(rows))
        ]
        sizes = [height * width for _, (height, width) in self.blocks]
        self.largest = max(sizes, default=0)
        self.bits = min(sum(sizes), _POOL)
        if self.bits < _POOL:  # enough bits for all: every weight has its own
            self.starts = [0, *torch.tensor(sizes).cumsum(0).tolist()[:-1]]
        else:
            self.starts = torch.randint(_POOL - self.largest + 1, (len(sizes),)).tolist()

    def each(
        self,
        factors: Tensor,
        scratch: Sequence[Tensor],
        by_query: Sequence[Tensor],
        by_key: Sequence[Tensor],
    ) -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
        """What belongs to each block, as views.

        Views are made once a tensor, not once a block: a block is a millisecond's work.

        Args:
            factors: (bits,) dropout factors.
            scratch: Memory of ``largest`` elements each.
            by_query: Tensors (heads, queries, ...).
            by_key: Tensors (heads, keys, ...).

        Yields:
            The block's part of each in ``by_query``; of each in ``by_key``; its dropout factors
            and, of the block's shape, each memory of ``scratch``.
        """
        queries = [[head.split(_BLOCK[0]) for head in tensor.unbind()] for tensor in by_query]
        keys = [[head.split(_BLOCK[1]) for head in tensor.unbind()] for tensor in by_key]
        shapes = {shape for _, shape in self.blocks}
        memory = {shape: [m[: math.prod(shape)].view(shape) for m in scratch] for shape in shapes}
        for ((head, row, column), shape), start in zip(self.blocks, self.starts, strict=True):
            yield (
                [tensor[head][row] for tensor in queries],
                [tensor[head][column] for tensor in keys],
                [factors.as_strided(shape, (shape[1], 1), start), *memory[shape]],
            )


class DropoutAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) with dropout on the weights, times v, on a CPU.

    Works in blocks that stay in the cache and recomputes the weights in the backward, as
    FlashAttention does (arXiv 2205.14135), so neither weights nor their dropout bits are kept.
    Logits are binary, ``q k^T / (sqrt(d) ln 2)``: torch's ``exp2`` takes half the time of ``exp``.

    A call draws a million random bits. Up to that number of weights each has its own bit; beyond,
    a block takes a run of them that starts at a random place. So every weight is dropped with the
    probability asked for, independently of all others in its block, but two blocks (other queries,
    keys or heads) may share bits at shifted places. **[choice]** Drawing all 259 million bits of
    PETR's step cost as much as half of its products.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, drop_prob: float) -> Tensor:
        """Attention of every head.

        Args:
            ctx: Holds what the backward needs.
            q: (G, Q, d), G = batch x heads.
            k: (G, K, d).
            v: (G, K, d).
            drop_prob: Within [0, 1).

        Returns:
            (G, Q, d).
        """
        q = q / (_LN_2 * math.sqrt(q.shape[-1]))
        blocks = _Blocks((*q.shape[:2], k.shape[1]))
        keep, keep_prob = keep_mask(blocks.bits, drop_prob)
        peaks = _row_peaks(q, k)
        out, total = torch.zeros_like(q), q.new_zeros(*q.shape[:2], 1)
        scratch = [q.new_empty(blocks.largest)]
        each = blocks.each(keep.float(), scratch, (q, out, total, *peaks), (k, v))
        for (q_, out_, total_, *peak), (k_, v_), (factor, weights) in each:
            _exponentials(q_, k_, peak, weights)
            total_ += weights.sum(-1, keepdim=True)
            out_.addmm_(weights.mul_(factor), v_)
        out.div_(total * keep_prob)
        ctx.save_for_backward(q, k, v, out, total, keep, *peaks)
        ctx.keep_prob, ctx.blocks = keep_prob, blocks
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of q, k and v.

        With weights p = e / total, dropout factors f = bit / keep_prob and D = grad v^T, the logits
        have the gradient p (f D - grad . out). 1 / total is taken into ``grad``, 1 / keep_prob into
        the factors.
        """
        q, k, v, out, total, keep, *peaks = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad = grad / total
        inner = (grad * out).sum(-1, keepdim=True)
        scratch = [q.new_empty(ctx.blocks.largest) for _ in range(3)]
        factors = keep.float().div_(ctx.keep_prob)
        by_query, by_key = (q, grad, grad_q, inner, *peaks), (k, v, grad_k, grad_v)
        each = ctx.blocks.each(factors, scratch, by_query, by_key)
        for (q_, grad_, grad_q_, inner_, *peak), (k_, v_, grad_k_, grad_v_), block in each:
            factor, weights, kept, slope = block
            _exponentials(q_, k_, peak, weights)
            torch.mul(weights, factor, out=kept)
            grad_v_.addmm_(kept.t(), grad_)
            torch.mm(grad_, v_.t(), out=slope)
            slope.mul_(kept).addcmul_(weights, inner_, value=-1)
            grad_q_.addmm_(slope, k_)
            grad_k_.addmm_(slope.t(), q_)
        return grad_q / math.sqrt(q.shape[-1]), grad_k * _LN_2, grad_v, None


def _row_peaks(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    """Each query's largest binary logit, one (G, Q, 1); none where none is large, as usual."""
    if not q.numel() or not k.numel():
        return ()
    bound = q.norm(dim=-1).amax(-1) * k.norm(dim=-1).amax(-1)  # Cauchy-Schwarz, by head
    if bool((bound <= _SAFE).all()):
        return ()
    peaks = [(part @ k.mT).amax(-1, keepdim=True) for part in q.split(_PEAK_ROWS, 1)]
    return (torch.cat(peaks, 1),)


def _exponentials(q: Tensor, k: Tensor, peak: Sequence[Tensor], out: Tensor) -> None:
    """2 to the binary logits of a block, less the rows' peaks where there are any."""
    torch.mm(q, k.t(), out=out)
    for largest in peak:
        out.sub_(largest)
    out.exp2_()


def attention(q: Tensor, k: Tensor, v: Tensor, drop_prob: float) -> Tensor:
    """Attention (B, heads, Q, d) of q (B, heads, Q, d) and k, v (B, heads, K, d), with dropout."""
    out = DropoutAttention.apply(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), drop_prob)
    return out.view(q.shape)
