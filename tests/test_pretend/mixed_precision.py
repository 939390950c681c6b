"""What mixed precision needs of the pretend accelerator: autocast's casts, and fused attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from tests.test_pretend.device import NAME, DeviceTensor
from tests.test_pretend.log import LOG

# torch's own lists (torch/docs, "Autocast Op Reference"), as far as this package meets them.
_LOWER = ('mm', 'bmm', 'addmm', 'linear', 'matmul', 'baddbmm', 'conv2d', '_convolution')
_FLOAT32 = (
    'layer_norm', 'native_layer_norm', 'softmax.int', 'log_softmax.int', 'cdist', 'exp', 'log',
    'sum', 'sum.dim_IntList', 'cumsum', 'prod', 'rsqrt', 'reciprocal', 'pow.Tensor_Scalar',
    'norm.ScalarOpt_dim', 'mse_loss', 'nll_loss', 'cross_entropy_loss', 'smooth_l1_loss', 'l1_loss',
    'binary_cross_entropy_with_logits', 'softplus',
)  # fmt: skip
_KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
_libraries: list[torch.library.Library] = []  # registrations live as long as these
_plain_attention = F.scaled_dot_product_attention


def install() -> None:
    """Register autocast for the device and replace torch's attention for its tensors."""
    everything = torch.library.Library('_', 'IMPL', 'AutocastPrivateUse1')
    everything.fallback(torch.library.fallthrough_kernel)
    aten = torch.library.Library('aten', 'IMPL')
    for names, lower in ((_LOWER, True), (_FLOAT32, False)):
        for name in names:
            aten.impl(name, _casting(name, lower), 'AutocastPrivateUse1')
    aten.impl('_fused_sgd_', lambda *_, **__: None, 'Meta')  # in place; torch has no such form
    _libraries.extend((everything, aten))
    F.scaled_dot_product_attention = attention


def _casting(name: str, lower: bool) -> Any:
    base, _, overload = name.partition('.')
    operation = getattr(getattr(torch.ops.aten, base), overload or 'default')

    def call(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME) if lower else torch.float32

        def cast(value: Any) -> Any:
            wanted = isinstance(value, DeviceTensor) and value.is_floating_point()
            return value.to(dtype) if wanted and value.dtype != torch.float64 else value

        with torch._C._ExcludeDispatchKeyGuard(_KEY):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    return call


def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``scaled_dot_product_attention``: one kernel forward, two backward, as the fused ones.

    Dropout inside it is left out: it changes numbers, not launches.
    """
    if not isinstance(query, DeviceTensor):
        return _plain_attention(query, key, value, *args, **kwargs)
    if kwargs.get('is_causal'):
        raise NotImplementedError('the pretend accelerator has no causal attention')
    mask = kwargs.pop('attn_mask', args[0] if args else None)
    if torch.is_autocast_enabled(NAME):
        query, key, value = (x.to(torch.get_autocast_dtype(NAME)) for x in (query, key, value))
    return _Attention.apply(query, key, value, mask, kwargs.get('scale'))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, mask, scale):  # noqa: ANN001, ANN205
        ctx.save_for_backward(query, key, value)
        ctx.options = dict(attn_mask=None if mask is None else mask.held, scale=scale)
        out = _Attention.numbers(ctx, query, key, value)[0].to(query.dtype)
        LOG.launch('attention', 1, None, (query, key, value), {}, out)
        return DeviceTensor(out)

    @staticmethod
    def numbers(ctx, *tensors):  # noqa: ANN001, ANN002, ANN205
        leaves = [t.held.detach().float().requires_grad_() for t in tensors]
        with torch.enable_grad():
            return _plain_attention(*leaves, **ctx.options), leaves

    @staticmethod
    def backward(ctx, gradient):  # noqa: ANN001, ANN205
        out, leaves = _Attention.numbers(ctx, *ctx.saved_tensors)
        found = torch.autograd.grad(out, leaves, gradient.held.float())
        LOG.launch('attention backward', 2, None, (*ctx.saved_tensors, gradient), {}, found)
        given = ctx.saved_tensors
        return *(DeviceTensor(g.to(t.dtype)) for g, t in zip(found, given, strict=True)), None, None
