"""Weight normalisation that keeps only what its backward pass needs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def weight_norm(direction: Tensor, gain: Tensor, eps: float = 1e-12) -> Tensor:
    """``w_k = g_k v_k / |v_k|`` row by row (arXiv 1602.07868, eq. 2).

    Autograd's own version keeps two intermediate (P, D) tensors, which for 65,536 prototypes are
    134 MB a layer and as many passes over memory; row norms are enough.

    Args:
        direction: v, (P, D).
        gain: g, (P, 1).
        eps: Lower bound of a row's norm.

    Returns:
        w, (P, D).
    """
    return _WeightNorm.apply(direction, gain, eps)


class _WeightNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, direction: Tensor, gain: Tensor, eps: float) -> Tensor:  # noqa: ANN001
        norm = torch.linalg.vector_norm(direction, dim=1, keepdim=True).clamp_min_(eps)
        ctx.save_for_backward(direction, gain, norm)
        return direction * (gain / norm)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # noqa: ANN001
        direction, gain, norm = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, direction)[:, None] / norm
        grad_direction = None
        if ctx.needs_input_grad[0]:
            # g / |v| (dw - v (dw . v) / |v|^2): the part along v does not turn it
            grad_direction = torch.addcmul(grad, direction, along / norm, value=-1).mul_(gain / norm)
        return grad_direction, along if ctx.needs_input_grad[1] else None, None
