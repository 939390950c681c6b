"""Multi-head attention that never returns, averages or keeps its weights.

``nn.MultiheadAttention`` computes the mean of its weights over the heads unless told not to, which
keeps a (queries x keys) matrix of each head alive: 900 x 6000 x 8 floats a layer in PETR. Nothing
reads them. ``scaled_dot_product_attention`` avoids them on GPUs, and on CPUs as long as there is no
dropout; :class:`DropoutAttention` is for the rest.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_CHUNK = 256
_LEVELS = 2**16


def _keep_mask(count: int, drop_prob: float) -> tuple[Tensor, float]:
    """``count`` random bits, True with probability 1 - drop_prob to 1/65536, and that probability.

    Four 16-bit numbers are cut from each random 64-bit integer: a fifth of the time of
    ``bernoulli_``.
    """
    cut = round(drop_prob * _LEVELS)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.int16)[:count] >= cut - _LEVELS // 2, 1 - cut / _LEVELS


class DropoutAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) with dropout on the weights, times v, on a CPU.

    Works in slices of queries and recomputes the weights in the backward from their logarithmic
    sum, as FlashAttention does (arXiv 2205.14135); a byte is kept for each weight: its dropout bit.
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
        q = q / math.sqrt(q.shape[-1])
        keep, keep_prob = _keep_mask(q.shape[0] * q.shape[1] * k.shape[1], drop_prob)
        keep = keep.view(q.shape[0], q.shape[1], k.shape[1])
        out = torch.empty_like(q)
        log_sum = q.new_empty(*q.shape[:2], 1)
        for g in range(q.shape[0]):
            for rows in _slices(q.shape[1]):
                weights = q[g, rows] @ k[g].t()
                peak = weights.amax(-1, keepdim=True)
                total = weights.sub_(peak).exp_().sum(-1, keepdim=True)
                log_sum[g, rows] = peak + total.log()
                weights.mul_(keep[g, rows])
                out[g, rows] = (weights @ v[g]).div_(total * keep_prob)
        ctx.save_for_backward(q, k, v, out, log_sum, keep)
        ctx.keep_prob = keep_prob
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of q, k and v."""
        q, k, v, out, log_sum, keep = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        inner = (grad * out).sum(-1, keepdim=True)
        for g in range(q.shape[0]):
            for rows in _slices(q.shape[1]):
                weights = torch.mm(q[g, rows], k[g].t()).sub_(log_sum[g, rows]).exp_()
                factor = keep[g, rows] / ctx.keep_prob
                grad_weights = torch.mm(grad[g, rows], v[g].t()).mul_(factor)
                grad_v[g].addmm_(factor.mul_(weights).t(), grad[g, rows])
                grad_logits = grad_weights.sub_(inner[g, rows]).mul_(weights)
                grad_q[g, rows] = grad_logits @ k[g]
                grad_k[g].addmm_(grad_logits.t(), q[g, rows])
        return grad_q / math.sqrt(q.shape[-1]), grad_k, grad_v, None


def _slices(length: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, length, _CHUNK)]


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, drop_prob: float = 0.0
) -> Tensor:
    """Scaled dot-product attention by the leanest exact way there is.

    Args:
        q: (B, heads, Q, d).
        k: (B, heads, K, d).
        v: (B, heads, K, d).
        mask: (B, 1, 1, K) or (Q, K) bool, True where a key may be seen; None: everywhere.
        drop_prob: Dropout of the weights.

    Returns:
        (B, heads, Q, d).
    """
    plain = q.device.type == 'cpu' and q.dtype == k.dtype == v.dtype == torch.float32
    if drop_prob > 0 and mask is None and plain:
        out = DropoutAttention.apply(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), drop_prob)
        return out.view(q.shape)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop_prob)


class LeanMultiheadAttention(MultiheadAttention):
    """mmcv's ``MultiheadAttention`` with the same weights and result, without attention weights.

    Always ``batch_first``. Built by class in :mod:`~s3pt_mm.detection.decoder`, so not registered.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attention with residual connection.

        Args:
            query: (B, Q, C).
            key: (B, K, C); None: the query.
            value: (B, K, C); None: the key.
            identity: What the result is added to; None: the query.
            query_pos: Added to the query, same shape.
            key_pos: Added to the key; None: nothing, unless the key is the query.
            attn_mask: (Q, K) bool, True where a query may *not* see a key.
            key_padding_mask: (B, K) bool, True at padding.
            kwargs: Of the host's signature, unused.

        Returns:
            (B, Q, C).
        """
        key = query if key is None else key
        value = key if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if key_pos is not None:
            key = key + key_pos
        weights = self.attn.in_proj_weight.chunk(3)
        biases = self.attn.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(tokens, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mask = None if attn_mask is None else ~attn_mask
        if key_padding_mask is not None:
            visible = ~key_padding_mask[:, None, None]
            mask = visible if mask is None else visible & mask
        out = attention(q, k, v, mask=mask, drop_prob=self.attn.dropout if self.training else 0.0)
        out = self.attn.out_proj(out.transpose(1, 2).flatten(2))
        return identity + self.dropout_layer(self.proj_drop(out))
