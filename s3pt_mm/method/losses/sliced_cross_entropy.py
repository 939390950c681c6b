"""Cross-entropy between prototype distributions without the (objects x prototypes) tensor.

A rank of 32 images has some hundred objects (docs/clusters.md), each with a row in both views, and
65,536 prototypes: a float32 tensor of that size is some hundred megabytes, and the plain form of
the loss keeps about ten. Here the logits exist for one slice of rows at a time. Because the loss is
a sum with known coefficients, a slice's gradient is formed while its logits are at hand: nothing is
recomputed, and what survives a slice has the size of the parameters' own gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s3pt_mm.kernels import kernel_for
from s3pt_mm.method.losses.fused_slice import SliceResult
from s3pt_mm.method.losses.prototype_logits import (
    PrototypeLogits,
    SliceLogits,
    is_half,
    softmax_and_log_sum,
    through_weight_norm,
)
from s3pt_mm.method.losses.slice_gradients import SliceGradients
from s3pt_mm.method.losses.target import SlicePlan, Target
from s3pt_mm.method.losses.tiled_cross_entropy import TiledCrossEntropy


class CrossEntropy(NamedTuple):
    """Result of :func:`sliced_cross_entropy`.

    Attributes:
        loss: () sum over all targets; carries the gradient.
        terms: (number of targets,) the same sum target by target, detached.
    """

    loss: Tensor
    terms: Tensor


def sliced_cross_entropy(
    student: PrototypeLogits,
    targets: Sequence[Target],
    *,
    slice_rows: int = 64,
    implementation: str = 'plain',
    fuse: Callable[..., SliceResult] | None = None,
    unscale: Callable[..., Tensor] = through_weight_norm,
) -> CrossEntropy:
    """``sum_pairs coefficient * CE(softmax(teacher - center), log_softmax(student))``.

    Several targets may teach the same student row (its other view and its neighbour): the
    student's logits and their gradient products are formed once for all of them.

    Args:
        student: n rows; gradients flow to its features, weight, gain and bias.
        targets: Teacher side; never receives a gradient.
        slice_rows: Student rows whose logits exist at a time; changes memory, not the result.
        implementation: 'plain', or 'kernel': factored targets under autocast on an NVIDIA GPU go
            through :mod:`s3pt_mm.kernels.cross_entropy`, everything else as if 'plain'.
        fuse: :func:`~s3pt_mm.method.losses.fused_slice.fused_slice`, compiled: takes a slice's
            arithmetic where products are half precision, all targets factored and no student row
            is taught twice by one of them.
        unscale: :func:`~s3pt_mm.method.losses.prototype_logits.through_weight_norm`, or compiled.

    Returns:
        The loss and its terms, in float32 (float64 for float64 features).

    Raises:
        ValueError: If ``slice_rows`` is below 1, a target's index tensors differ in length, or
            ``implementation`` is unknown.
    """
    if slice_rows < 1:
        raise ValueError(f'slice_rows must be at least 1, got {slice_rows}')
    for number, target in enumerate(targets):
        pairs = target.num_rows if target.teacher_rows is None else len(target.teacher_rows)
        lengths = [len(target.student_rows), len(target.coefficients), pairs]
        if len(set(lengths)) != 1:
            raise ValueError(
                f'target {number}: student_rows, coefficients and teacher rows differ in '
                f'length: {lengths}'
            )
    kernels = kernel_for('cross_entropy', student.features.device, implementation)
    half = is_half(student.features)
    leaves = student.features, student.weight, student.gain, student.bias
    if kernels is not None and half and all(target.factored for target in targets):
        return CrossEntropy(*TiledCrossEntropy.apply(*leaves, student, tuple(targets), kernels))
    fuse = fuse if half else None
    return CrossEntropy(
        *_SlicedCrossEntropy.apply(*leaves, student, tuple(targets), slice_rows, fuse, unscale)
    )


class _SlicedCrossEntropy(torch.autograd.Function):
    # The tensors come apart from ``student`` so that autograd sees them.
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        student: PrototypeLogits,
        targets: tuple[Target, ...],
        slice_rows: int,
        fuse: Callable[..., SliceResult] | None,
        unscale: Callable[..., Tensor],
    ) -> tuple[Tensor, Tensor]:
        slices = SliceLogits(student)
        need = ctx.needs_input_grad[:4]
        grads = SliceGradients(slices, need) if any(need) else None
        plans = [SlicePlan(target, len(features), slice_rows) for target in targets]
        if fuse is not None and not all(plan.fusible for plan in plans):
            fuse = None
        parts = []
        # The products above know autocast's dtype; everything else stays in float32.
        with torch.autocast(features.device.type, enabled=False):
            for piece, begin in enumerate(range(0, len(features), slice_rows)):
                if fuse is not None and grads is not None:
                    parts.append(_fused(fuse, slices, plans, piece, begin, grads))
                else:
                    parts.append(_in_place(slices, plans, piece, begin, grads))
        terms = torch.stack(parts).sum(0) if parts else slices.bare((len(targets),))
        if grads is not None:
            ctx.save_for_backward(weight, gain, student.norm)
            ctx.dtypes = features.dtype, weight.dtype
            ctx.sums, ctx.unscale = grads.sums(), unscale
        ctx.mark_non_differentiable(terms)
        return terms.sum(), terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.sums is None:
            raise RuntimeError('sliced_cross_entropy gives its gradient once: no retain_graph')
        (by_features, by_weight, by_bias), ctx.sums = ctx.sums, None
        weight, gain, norm = ctx.saved_tensors
        need_weight, need_gain = ctx.needs_input_grad[1:3]
        by_gain = None
        if by_weight is not None:
            if gain is None:
                by_weight.mul_(grad_loss.to(by_weight.dtype))
            else:
                by_gain = ctx.unscale(by_weight, grad_loss, weight, gain, norm)
        for grad in (by_features, by_bias):
            if grad is not None:
                grad.mul_(grad_loss.to(grad.dtype))
        return (
            None if by_features is None else by_features.to(ctx.dtypes[0]),
            by_weight.to(ctx.dtypes[1]) if need_weight and by_weight is not None else None,
            by_gain.to(gain.dtype) if need_gain and by_gain is not None else None,
            by_bias,
            *(None,) * 5,
        )


def _in_place(
    slices: SliceLogits,
    plans: list[SlicePlan],
    piece: int,
    begin: int,
    grads: SliceGradients | None,
) -> Tensor:
    """(number of targets,) terms of one slice, its gradient added to ``grads``."""
    logits = slices.of(plans[0].rows(begin))
    gradient, log_sum = softmax_and_log_sum(logits)
    # d loss / d logits = mass * softmax(student) - sum of weighted targets
    taught = [plan.slice(piece, begin) for plan in plans]
    mass = log_sum.new_zeros(len(logits))
    for found in filter(None, taught):
        mass.index_add_(0, found[0], found[1])
    gradient.mul_(mass[:, None])
    terms = []
    for plan, pairs in zip(plans, taught, strict=True):
        if pairs is None:
            terms.append(slices.bare(()))
            continue
        local, coefficients, teacher_rows = pairs
        probabilities = plan.probabilities(teacher_rows)
        own, ends = (logits, log_sum) if plan.aligned else (logits[local], log_sum[local])
        cross = ends[:, 0] - torch.linalg.vecdot(probabilities, own)
        terms.append((coefficients * cross).sum())
        if grads is not None:
            probabilities.mul_(coefficients[:, None])
            if plan.aligned:
                gradient.sub_(probabilities)
            else:
                gradient.index_add_(0, local, probabilities, alpha=-1)
        del probabilities, own
    if grads is not None and any(found is not None for found in taught):
        grads.add(begin, gradient)
    return torch.stack(terms)


def _fused(
    fuse: Callable[..., SliceResult],
    slices: SliceLogits,
    plans: list[SlicePlan],
    piece: int,
    begin: int,
    grads: SliceGradients,
) -> Tensor:
    """:func:`_in_place` by a fused function."""
    taught = [plan.taught(piece, begin) for plan in plans]
    products = slices.products(plans[0].rows(begin))
    found = fuse(products, slices.factor_tensor(), slices.bias, taught)
    log_sums = (plan.target.log_probability_sum for plan in plans)
    wanted = [total for total in log_sums if total is not None]
    for total, here in zip(wanted, found.columns, strict=True):
        torch.logaddexp(total, here, out=total)
    grads.add_narrow(begin, found.gradient, found.peak)
    return found.terms
