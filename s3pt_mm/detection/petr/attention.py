"""Multi-head attention that never returns, averages or keeps its weights.

``nn.MultiheadAttention`` computes the mean of its weights over the heads unless told not to, which
keeps a (queries x keys) matrix of each head alive: 900 x 6000 x 8 floats a layer in PETR. Nothing
reads them. ``scaled_dot_product_attention`` avoids them on GPUs, and on CPUs as long as there is no
dropout; :mod:`s3pt_mm.kernels.dropout_attention` is for the rest.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import MultiheadAttention
from torch import Tensor

from s3pt_mm.kernels import kernel_for


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    drop_prob: float = 0.0,
    implementation: str = 'plain',
) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: (B, heads, Q, d).
        k: (B, heads, K, d).
        v: (B, heads, K, d).
        mask: (B, 1, 1, K) or (Q, K) bool, True where a key may be seen; None: everywhere.
        drop_prob: Dropout of the weights.
        implementation: 'plain', or 'kernel': dropout without a mask in float32 on a CPU goes
            through blocks whose dropout bits are not all independent.

    Returns:
        (B, heads, Q, d).
    """
    kernel = kernel_for('dropout_attention', q.device, implementation)
    float32 = q.dtype == k.dtype == v.dtype == torch.float32
    if kernel is not None and float32 and drop_prob > 0 and mask is None:
        return kernel.attention(q, k, v, drop_prob)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop_prob)


class LeanMultiheadAttention(MultiheadAttention):
    """mmcv's ``MultiheadAttention`` with the same weights and result, without attention weights.

    Always ``batch_first``. Built by class in :mod:`~s3pt_mm.detection.petr.decoder`, so not
    registered.

    Args:
        implementation: See :func:`attention`.
        **kwargs: Of mmcv's.
    """

    def __init__(self, *, implementation: str = 'plain', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.implementation = implementation

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
        out = attention(
            q,
            k,
            v,
            mask=mask,
            drop_prob=self.attn.dropout if self.training else 0.0,
            implementation=self.implementation,
        )
        out = self.attn.out_proj(out.transpose(1, 2).flatten(2))
        return identity + self.dropout_layer(self.proj_drop(out))
