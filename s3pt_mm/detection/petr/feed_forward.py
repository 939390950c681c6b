"""mmcv's feed-forward network that keeps one hidden tensor for the backward instead of three."""

from __future__ import annotations

import torch
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, autograd
from torch.autograd.function import FunctionCtx, once_differentiable

from s3pt_mm.detection.petr.attention import keep_mask


class DroppedReLU(autograd.Function):
    """Dropout of a rectified tensor, on a CPU.

    What is kept is the result, which the next layer keeps anyway: it is positive exactly where a
    gradient passes. torch keeps the rectified tensor and the dropout's factors as well.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, drop_prob: float) -> Tensor:
        """Dropout(ReLU(x)); ``x`` may have any shape, ``drop_prob`` lies within [0, 1)."""
        keep, keep_prob = keep_mask(x.numel(), drop_prob)
        out = x.clamp(min=0).masked_fill_(~keep.view(x.shape), 0).div_(keep_prob)
        ctx.save_for_backward(out)
        ctx.keep_prob = keep_prob
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient where the result is positive, over the probability of keeping."""
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, out, 0).div_(ctx.keep_prob), None


class LeanFFN(FFN):
    """mmcv's ``FFN`` of two layers with ReLU: the same weights and, without dropout, result.

    Built by class in :mod:`~s3pt_mm.detection.petr.decoder`, so not registered.
    """

    def forward(self, x: Tensor, identity: Tensor | None = None) -> Tensor:
        """Network and residual connection.

        Args:
            x: (..., C).
            identity: What the result is added to; None: ``x``.
        """
        (first, _, dropout), second, last = self.layers
        lean = self.training and dropout.p > 0 and self.add_identity and x.device.type == 'cpu'
        if not lean:
            return super().forward(x, identity)
        hidden = DroppedReLU.apply(first(x), dropout.p)
        return (x if identity is None else identity) + self.dropout_layer(last(second(hidden)))
