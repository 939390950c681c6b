"""Cross-entropy between prototype distributions without the (objects x prototypes) tensor.

A rank of 32 images has some hundred objects (docs/clusters.md), each with a row in both views, and
65,536 prototypes: a float32 tensor of that size is some hundred megabytes, and the plain form of
the loss keeps about ten. Here the logits exist for one slice of rows at a time. Because the loss is
a sum with known coefficients, a slice's gradient is formed while its logits are at hand: nothing is
recomputed, and what survives a slice has the size of the parameters' own gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s3pt_mm.kernels import kernel_for
from s3pt_mm.method.host import send
from s3pt_mm.method.losses.prototype_logits import (
    PrototypeLogits,
    SliceLogits,
    accumulate_log_probability,
    product_dtype,
    softmax_and_log_sum,
    through_weight_norm,
)
from s3pt_mm.method.losses.slice_gradients import SliceGradients
from s3pt_mm.method.losses.tiled_cross_entropy import TiledCrossEntropy


@dataclass(frozen=True)
class Target:
    """Teacher rows and the student rows they teach.

    Args:
        teacher: m teacher rows: logits in factored form without the centre or, where the rows are
            few, their (m, P) probabilities.
        student_rows: (t,) int64, the student row of each pair, on the host.
        coefficients: (t,) weight of each pair's cross-entropy in the loss, on the teacher's device.
        teacher_rows: (t,) int64, the teacher row of each pair, on the host; None pairs row i with
            row i.
        center: (P,) subtracted from factored logits, in their units; None is zero.
        log_probability_sum: (P,) of -inf that receives ``log sum_rows softmax(logits)``, what a
            centre in probability space needs: a by-product where the logits would otherwise be
            formed twice. For factored logits of which each row is used once.
    """

    teacher: PrototypeLogits | Tensor
    student_rows: Tensor
    coefficients: Tensor
    teacher_rows: Tensor | None = None
    center: Tensor | None = None
    log_probability_sum: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """Number of teacher rows."""
        teacher = self.teacher
        return len(teacher.features if isinstance(teacher, PrototypeLogits) else teacher)

    @property
    def factored(self) -> bool:
        """Whether the teacher is given as logits in factored form."""
        return isinstance(self.teacher, PrototypeLogits)


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
    half = product_dtype(student.features) in (torch.float16, torch.bfloat16)
    leaves = student.features, student.weight, student.gain, student.bias
    if kernels is not None and half and all(target.factored for target in targets):
        return CrossEntropy(*TiledCrossEntropy.apply(*leaves, student, tuple(targets), kernels))
    return CrossEntropy(*_SlicedCrossEntropy.apply(*leaves, student, tuple(targets), slice_rows))


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
    ) -> tuple[Tensor, Tensor]:
        slices = SliceLogits(student)
        sums: list[Tensor | None] = [None] * len(targets)
        need = ctx.needs_input_grad[:4]
        grads = SliceGradients(slices, need) if any(need) else None
        plans = [_SlicePlan(target, len(features), slice_rows) for target in targets]

        for piece, begin in enumerate(range(0, len(features), slice_rows)):
            logits = slices.of(slice(begin, begin + slice_rows))
            gradient, log_sum = softmax_and_log_sum(logits)
            # d loss / d logits = mass * softmax(student) - sum of weighted targets
            taught = [plan.slice(piece, begin) for plan in plans]
            mass = log_sum.new_zeros(len(logits))
            for found in filter(None, taught):
                mass.index_add_(0, found[0], found[1])
            gradient.mul_(mass[:, None])
            for number, (plan, pairs) in enumerate(zip(plans, taught, strict=True)):
                if pairs is None:
                    continue
                local, coefficients, teacher_rows = pairs
                probabilities = plan.probabilities(teacher_rows)
                own, ends = (logits, log_sum) if plan.aligned else (logits[local], log_sum[local])
                cross = ends[:, 0] - torch.linalg.vecdot(probabilities, own)
                before, part = sums[number], (coefficients * cross).sum()
                sums[number] = part if before is None else before + part
                if grads is not None:
                    probabilities.mul_(coefficients[:, None])
                    if plan.aligned:
                        gradient.sub_(probabilities)
                    else:
                        gradient.index_add_(0, local, probabilities, alpha=-1)
                del probabilities, own
            if grads is not None and any(found is not None for found in taught):
                grads.add(begin, gradient)
            del gradient, logits

        terms = torch.stack([slices.bare(()) if one is None else one for one in sums])
        if grads is not None:
            ctx.save_for_backward(weight, gain, student.norm)
            ctx.dtypes = features.dtype, weight.dtype
            ctx.sums = grads.sums()
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
                by_gain = through_weight_norm(by_weight, grad_loss, weight, gain, norm)
        for grad in (by_features, by_bias):
            if grad is not None:
                grad.mul_(grad_loss.to(grad.dtype))
        return (
            None if by_features is None else by_features.to(ctx.dtypes[0]),
            by_weight.to(ctx.dtypes[1]) if need_weight and by_weight is not None else None,
            by_gain.to(gain.dtype) if need_gain and by_gain is not None else None,
            by_bias,
            *(None,) * 3,
        )


class _SlicePlan:
    """Which pairs of one target fall into each slice of student rows.

    Borders are looked up once, on the host: a mask in every slice would make it wait for each.
    """

    def __init__(self, target: Target, num_rows: int, slice_rows: int) -> None:
        self.target = target
        teacher = target.teacher
        self.teacher = SliceLogits(teacher) if isinstance(teacher, PrototypeLogits) else teacher
        # Rows are known on the host; what indexes tensors is sent, and nothing is waited for.
        rows, order = target.student_rows.cpu().sort(stable=True)
        taught = order if target.teacher_rows is None else target.teacher_rows.cpu()[order]
        self.aligned = len(rows) == num_rows and torch.equal(rows, torch.arange(num_rows))
        starts = torch.arange(0, num_rows + slice_rows, slice_rows)
        self.borders = torch.searchsorted(rows, starts).tolist()
        coefficients, device = target.coefficients, target.coefficients.device
        self.student_rows, self.teacher_rows = send(rows, device), send(taught, device)
        in_order = torch.equal(order, torch.arange(len(order)))
        dtype = self.teacher.dtype if isinstance(self.teacher, Tensor) else self.teacher.total
        coefficients = coefficients if in_order else coefficients[send(order, device)]
        self.coefficients = coefficients.to(dtype)

    def slice(self, piece: int, begin: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Student rows (t,) within the slice, their coefficients and teacher rows (t,)."""
        first, last = self.borders[piece], self.borders[piece + 1]
        if first == last:
            return None
        local = self.student_rows[first:last] - begin if begin else self.student_rows[:last]
        return local, self.coefficients[first:last], self.teacher_rows[first:last]

    def probabilities(self, rows: Tensor) -> Tensor:
        """(t, P) target probabilities of teacher rows (t,), a new tensor."""
        target, teacher = self.target, self.teacher
        if isinstance(teacher, Tensor):
            return teacher[rows]
        logits = teacher.of(rows)
        if target.log_probability_sum is not None:
            accumulate_log_probability(target.log_probability_sum, logits)
        if target.center is not None:
            logits -= target.center
        return torch.softmax(logits, dim=1)
