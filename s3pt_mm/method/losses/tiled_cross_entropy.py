"""The cross-entropy of ``sliced_cross_entropy`` through kernels that never write a logit."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, autograd
from torch.autograd.function import once_differentiable

from s3pt_mm.common.host import send
from s3pt_mm.method.losses.prototype_logits import (
    PrototypeLogits,
    product_dtype,
    through_weight_norm,
)

if TYPE_CHECKING:
    from s3pt_mm.method.losses.target import Target


class TiledCrossEntropy(autograd.Function):
    """Loss and terms of factored targets; the backward forms the logits again.

    The tensors come apart from ``student`` so that autograd sees them. ``kernels`` is
    :mod:`s3pt_mm.kernels.cross_entropy`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        student: PrototypeLogits,
        targets: tuple[Target, ...],
        kernels: ModuleType,
    ) -> tuple[Tensor, Tensor]:
        """The loss () and the terms (number of targets,), float32."""
        own_prototypes = _prototypes(student, product_dtype(features))
        parts, saved = [], []
        for target in targets:
            rows = send(target.student_rows, features.device)
            own = kernels.Side(features[rows].to(own_prototypes[0].dtype), *own_prototypes)
            teacher, center = _teacher(target, kernels)
            shifted = teacher._replace(bias=teacher.bias - center)
            sums = kernels.forward(own, shifted, center)
            if target.log_probability_sum is not None:
                here = kernels.column_log_sum(teacher, sums.uncentered)
                torch.logaddexp(target.log_probability_sum, here, out=target.log_probability_sum)
            coefficients = target.coefficients.float()
            parts.append((coefficients * (sums.student - sums.cross)).sum())
            saved.append((own, shifted, sums, coefficients, rows))
        ctx.saved, ctx.kernels, ctx.student = saved, kernels, student
        ctx.save_for_backward(weight, gain)
        terms = torch.stack(parts)
        ctx.mark_non_differentiable(terms)
        return terms.sum(), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of features, weight, gain and bias."""
        if ctx.saved is None:
            raise RuntimeError('sliced_cross_entropy gives its gradient once: no retain_graph')
        weight, gain = ctx.saved_tensors
        saved, ctx.saved, student = ctx.saved, None, ctx.student
        need = ctx.needs_input_grad
        by_features = torch.zeros_like(student.features, dtype=torch.float32)
        by_weight: Tensor | None = None
        by_bias: Tensor | None = None
        by_gain: Tensor | None = None
        for own, shifted, sums, coefficients, rows in saved:
            by_row, *by_prototype = ctx.kernels.backward(
                own, shifted, sums, coefficients, need_prototypes=any(need[1:4])
            )
            by_features.index_add_(0, rows, by_row)
            if any(need[1:4]):
                weights, biases = by_prototype
                by_weight = weights if by_weight is None else by_weight.add_(weights)
                by_bias = biases if by_bias is None else by_bias.add_(biases)
        if by_weight is not None:
            factor = grad_loss / student.temperature
            if gain is None:
                by_weight.mul_(factor)
            else:
                by_gain = through_weight_norm(by_weight, factor, weight, gain, student.norm)
        return (
            (by_features * grad_loss).to(student.features.dtype) if need[0] else None,
            by_weight.to(weight.dtype) if need[1] and by_weight is not None else None,
            by_gain.to(gain.dtype) if need[2] and by_gain is not None else None,
            by_bias * grad_loss if need[3] and by_bias is not None else None,
            None,
            None,
            None,
        )


def _prototypes(logits: PrototypeLogits, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Weight (P, D) in ``dtype``, factor (P,) and bias (P,) in float32."""
    weight, scale = logits.weight_in(dtype), logits.scale()
    factor = logits.weight.new_ones(len(weight)) if scale is None else scale
    bias = torch.zeros_like(factor) if logits.bias is None else logits.bias.detach()
    return weight, factor.float() / logits.temperature, bias.float()


def _teacher(target: Target, kernels: ModuleType) -> tuple[Any, Tensor]:
    """The target's side, one row a pair and without the centre, and the centre (P,)."""
    logits = target.teacher
    assert isinstance(logits, PrototypeLogits)  # what the caller asked
    weight, factor, bias = _prototypes(logits, product_dtype(logits.features))
    rows = logits.features.detach().to(weight.dtype)
    if target.teacher_rows is not None:
        rows = rows[send(target.teacher_rows, rows.device)]
    center = torch.zeros_like(bias) if target.center is None else target.center.float()
    return kernels.Side(rows.contiguous(), weight, factor.contiguous(), bias.contiguous()), center
