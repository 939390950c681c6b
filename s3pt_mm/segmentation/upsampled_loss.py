"""Cross-entropy of patch scores at full resolution, stripe by stripe.

The stock way enlarges the scores to (B, C, H, W), a hundred times the size of the patch grid, and
goes over that about ten times: softmax, loss, both gradients, the training accuracy. Bilinear
enlargement is a product with one matrix a side, so a stripe of rows can be enlarged, scored and led
back to the patch grid while it lies in the processor's cache. The gradient is formed with the loss.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

STRIPE = 64
"""Rows at a time: 64 x 13 classes x 512 pixels of float32 are 1.7 MB."""


def upsampled_cross_entropy(
    scores: Tensor, label: Tensor, ignore_index: int, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of bilinearly enlarged scores, and how many pixels they get right.

    Args:
        scores: (B, C, h, w) floating point.
        label: (B, H, W) classes or ``ignore_index``.
        ignore_index: Label that does not count.
        align_corners: Of the enlargement.

    Returns:
        Sum over the labelled pixels, a scalar with a gradient; number of labelled pixels whose
        highest score is the label's, without one.
    """
    # Sums over a million pixels: float32 whatever the mode, and buffers have one dtype.
    with torch.autocast(scores.device.type, enabled=False):
        return _UpsampledCrossEntropy.apply(scores, label, ignore_index, align_corners)


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, label: Tensor, ignore_index: int, align_corners: bool
    ) -> tuple[Tensor, Tensor]:
        batch, classes, rows, columns = scores.shape
        height, width = label.shape[1:]
        dtype = torch.promote_types(scores.dtype, torch.float32)
        down = _weights(rows, height, align_corners, dtype)  # (H, h)
        across = _weights(columns, width, align_corners, dtype)  # (W, w)
        wide = scores.to(dtype).permute(0, 2, 1, 3) @ across.t()  # (B, h, C, W)
        wide_gradient = torch.zeros_like(wide)
        loss = torch.zeros((), dtype=torch.float64)
        hits = torch.zeros((), dtype=torch.int64)
        labelled = label != ignore_index
        target = label if labelled.all() else label.masked_fill(~labelled, 0)
        stripe = wide.new_empty(min(STRIPE, height), classes, width)
        for image in range(batch):
            for start in range(0, height, STRIPE):
                end = min(start + STRIPE, height)
                part, source = _source_rows(down, start, end)
                z = stripe[: end - start]
                torch.mm(part, wide[image, source].flatten(1), out=z.flatten(1))
                index, valid = target[image, start:end, None], labelled[image, start:end]
                z -= z.amax(1, keepdim=True)
                own = z.gather(1, index).squeeze(1)
                total = z.exp_().sum(1)
                loss += ((total.log() - own) * valid).sum(dtype=torch.float64)
                hits += ((own == 0) & valid).sum()
                if ctx.needs_input_grad[0]:
                    share = valid / total
                    z *= share[:, None]
                    z.scatter_add_(1, index, -valid[:, None].to(dtype))
                    wide_gradient[image, source].flatten(1).addmm_(part.t(), z.flatten(1))
        if ctx.needs_input_grad[0]:
            gradient = (wide_gradient @ across).permute(0, 2, 1, 3)
            ctx.save_for_backward(gradient.to(scores.dtype))
        ctx.mark_non_differentiable(hits)
        return loss.to(dtype), hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss: Tensor, hits: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss.to(gradient.dtype), None, None, None


@functools.lru_cache(maxsize=16)
def _weights(source: int, target: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """(target, source) matrix of linear enlargement along one side, as PyTorch weighs it."""
    unit = torch.eye(source, dtype=dtype)[None]
    return F.interpolate(unit, size=target, mode='linear', align_corners=align_corners)[0].t()


def _source_rows(down: Tensor, start: int, end: int) -> tuple[Tensor, slice]:
    """Rows ``start`` to ``end`` of the enlargement: its weights and the patch rows they need."""
    used = down[start:end].any(0).nonzero()
    source = slice(int(used[0]), int(used[-1]) + 1)
    return down[start:end, source], source
