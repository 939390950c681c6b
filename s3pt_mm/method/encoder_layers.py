"""mmpretrain's encoder layers, run with as few kernels as eager PyTorch allows.

The numbers are those of the layers' own ``forward`` under autocast, but for one rounding in drop
path. What is saved, a step of ViT-S: the weights' casts, one at a time, and their gradients'; drop
path's four passes a branch; three scattered gradients in place of one of queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmcv.cnn.bricks.drop import DropPath
from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn
from torch.nn import functional as F

from s3pt_mm.method.losses.prototype_logits import autocast_dtype

# Layers whose weights are cast together: few enough that DDP sends gradients before the last.
_TOGETHER = 3


def is_plain(layer: Any) -> bool:
    """Whether :func:`run_layers` computes what ``layer(tokens)`` does: no extra part."""
    if type(layer) is not TransformerEncoderLayer or type(layer.ffn) is not FFN:
        return False
    attention, ffn = layer.attn, layer.ffn
    if type(attention) is not MultiheadAttention or attention.v_shortcut or len(ffn.layers) != 3:
        return False
    paths = (attention.out_drop, ffn.dropout_layer)
    extras = [attention.gamma1, ffn.gamma2, attention.proj_drop, ffn.layers[0][2], ffn.layers[2]]
    return (
        attention.scaled_dot_product_attention is F.scaled_dot_product_attention
        and not attention.attn_drop
        and ffn.add_identity
        and all(isinstance(path, (DropPath, nn.Identity)) for path in paths)
        and all(isinstance(x, nn.Identity) or getattr(x, 'p', 1) == 0 for x in extras)
    )


def hooked(layers: nn.Module) -> bool:
    """Whether somebody listens to a part, which :func:`run_layers` would not call."""
    if torch.compiler.is_compiling():
        return False
    return any(part._forward_hooks or part._forward_pre_hooks for part in layers.modules())


def run_layers(layers: nn.ModuleList, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
    """(n, N, d) tokens through plain layers.

    Args:
        layers: For which :func:`is_plain` holds.
        tokens: float32 or float64.
        keep: (m, 2) :func:`keep_chances` of the last m layers, whose branches are dropped.
    """
    half = autocast_dtype(tokens)
    shares: list[Any] = [(None, None)] * len(layers)
    if keep is not None:
        shares[len(layers) - len(keep) :] = drop_path_shares(keep, len(tokens))
    with torch.autocast(tokens.device.type, enabled=False):
        for begin in range(0, len(layers), _TOGETHER):
            group: list[Any] = list(layers[begin : begin + _TOGETHER])
            linears = [linear for layer in group for linear in _linears(layer)]
            weights = iter(narrowed(linears, half))
            for number, layer in enumerate(group, begin):
                own = [next(weights) for _ in range(4)]
                tokens = _layer(layer, tokens, own, half, shares[number])
    return tokens


def drop_path_shares(keep: Tensor, count: int) -> Tensor:
    """(m, 2) chances to keep -> (m, 2, n): 0 for a dropped branch, 1 / chance for a kept one."""
    drawn = torch.rand(*keep.shape, count, dtype=keep.dtype, device=keep.device)
    # As mmcv draws, layer by layer: the same generator drops the same branches.
    return (keep[..., None] + drawn).floor_() / keep[..., None]


def keep_chances(layers: Iterable[Any]) -> Tensor:
    """(m, 2) chances of the branches after attention and MLP, from the first layer that drops."""
    paths = [(layer.attn.out_drop, layer.ffn.dropout_layer) for layer in layers]
    chances = [[1 - float(getattr(path, 'drop_prob', 0)) for path in pair] for pair in paths]
    first = next((n for n, pair in enumerate(chances) if min(pair) < 1), len(chances))
    return torch.tensor(chances[first:], dtype=torch.float32).view(-1, 2)


def _linears(layer: Any) -> list[nn.Linear]:
    return [layer.attn.qkv, layer.attn.proj, layer.ffn.layers[0][0], layer.ffn.layers[1]]


def _layer(
    layer: Any,
    tokens: Tensor,
    weights: list[tuple[Tensor, Tensor | None]],
    half: torch.dtype | None,
    shares: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    qkv, proj, widen, narrow = weights
    dtype = half or tokens.dtype
    count, places, width = tokens.shape
    heads = (count, places, 3, layer.attn.num_heads, width // layer.attn.num_heads)
    parts = F.linear(layer.ln1(tokens).to(dtype), *qkv).view(heads).unbind(2)
    query, key, value = (part.transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(query, key, value)
    mixed = mixed.transpose(1, 2).reshape(count, places, width)
    tokens = _add(tokens, F.linear(mixed, *proj), shares[0])
    hidden = layer.ffn.layers[0][1](F.linear(layer.ln2(tokens).to(dtype), *widen))
    return _add(tokens, F.linear(hidden, *narrow), shares[1])


def _add(tokens: Tensor, branch: Tensor, share: Tensor | None) -> Tensor:
    if share is None:
        return tokens + branch
    if torch.compiler.is_compiling():
        return tokens + branch * share[:, None, None]
    return _DropPath.apply(tokens, branch, share[:, None, None])


class _DropPath(torch.autograd.Function):
    """``tokens + share * branch``; the branch's gradient is multiplied and cast in one."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, branch: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(share)
        ctx.dtype = branch.dtype
        return torch.addcmul(tokens, branch, share)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (share,) = ctx.saved_tensors
        by_branch = torch.empty_like(grad, dtype=ctx.dtype)
        return grad, torch.mul(grad, share, out=by_branch), None


def narrowed(
    linears: Sequence[nn.Linear], dtype: torch.dtype | None
) -> list[tuple[Tensor, Tensor | None]]:
    """(weight, bias) of each layer in ``dtype``, with one kernel for all of one call.

    None leaves them as they are. Gradients come back in the parameters' own type, in one too.
    """
    pairs: list[tuple[Tensor, Tensor | None]] = [(one.weight, one.bias) for one in linears]
    if dtype is None:
        return pairs
    there = [tensor for pair in pairs for tensor in pair if tensor is not None]
    if torch.compiler.is_compiling():
        cast = iter([tensor.to(dtype) for tensor in there])
    else:
        cast = iter(_Narrow.apply(dtype, *there))
    return [(next(cast), None if bias is None else next(cast)) for _, bias in pairs]


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        narrow = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
        torch._foreach_copy_(narrow, list(tensors))
        wanted = ctx.needs_input_grad[1:]
        ctx.mark_non_differentiable(
            *[one for one, want in zip(narrow, wanted, strict=True) if not want]
        )
        return tuple(narrow)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        wide = [
            None if grad is None else torch.empty_like(grad, dtype=dtype)
            for grad, dtype in zip(grads, ctx.dtypes, strict=True)
        ]
        pairs = zip(wide, grads, strict=True)
        there = [(w, g) for w, g in pairs if w is not None and g is not None]
        if there:
            torch._foreach_copy_([w for w, _ in there], [g for _, g in there])
        return None, *wide
