"""Cross-entropy between prototype distributions without the (objects x prototypes) tensor.

With 128 clusters a rank has thousands of objects and 65,536 prototypes: one float32 tensor of
that size is gigabytes, and the plain form of the loss keeps about ten. Here the logits exist for
one slice of rows at a time. Because the loss is a sum with known coefficients, the gradient of a
slice is formed while its logits are at hand: nothing is recomputed, and what survives a
slice has the size of the parameters' own gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class PrototypeLogits:
    """Logits in factored form: ``features @ weight.T / temperature + bias``.

    Args:
        features: (n, D) unit-norm bottleneck vectors.
        weight: (P, D) prototypes.
        temperature: Positive divisor of the products.
        bias: (P,) added to every row, e.g. the vMF log-normaliser; None is zero.
    """

    features: Tensor
    weight: Tensor
    temperature: float
    bias: Tensor | None = None

    def dense(self) -> Tensor:
        """The (n, P) logits in float32 (or float64); for few rows only."""
        return _slice_logits(self.features, self.weight, self.temperature, self.bias)


@dataclass(frozen=True)
class Target:
    """Teacher rows and the student rows they teach.

    Args:
        teacher: m teacher rows: logits in factored form without the centre or, where the rows are
            few, their (m, P) probabilities.
        student_rows: (t,) int64, the student row of each pair.
        coefficients: (t,) weight of each pair's cross-entropy in the loss.
        teacher_rows: (t,) int64, the teacher row of each pair; None pairs row i with row i.
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
        return len(self.teacher.features if self.factored else self.teacher)

    @property
    def factored(self) -> bool:
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
) -> CrossEntropy:
    """``sum_pairs coefficient * CE(softmax(teacher - center), log_softmax(student))``.

    Several targets may teach the same student row (its other view and its neighbour): the
    student's logits and their gradient products are formed once for all of them.

    Args:
        student: n rows; gradients flow to its features, weight and bias.
        targets: Teacher side; never receives a gradient.
        slice_rows: Student rows whose logits exist at a time; changes memory, not the result.

    Returns:
        The loss and its terms, in float32 (float64 for float64 features).

    Raises:
        ValueError: If ``slice_rows`` is below 1 or a target's index tensors differ in length.
    """
    if slice_rows < 1:
        raise ValueError(f'slice_rows must be at least 1, got {slice_rows}')
    for number, target in enumerate(targets):
        pairs = target.num_rows if target.teacher_rows is None else len(target.teacher_rows)
        lengths = [len(target.student_rows), len(target.coefficients), pairs]
        if len(set(lengths)) != 1:
            raise ValueError(
                f'target {number}: student_rows, coefficients and teacher rows differ in length: {lengths}'
            )
    return CrossEntropy(
        *_SlicedCrossEntropy.apply(
            student.features,
            student.weight,
            student.bias,
            student.temperature,
            tuple(targets),
            slice_rows,
        )
    )


class _SlicedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, bias, temperature, targets, slice_rows):  # noqa: ANN001
        need = any(ctx.needs_input_grad[:3])
        product, total = _product_dtype(features), _accumulation_dtype(features)
        terms = features.new_zeros(len(targets), dtype=total)
        grads = _Gradients(features, weight, bias, total) if need else None
        student_weight = weight.detach().to(product)
        plans = [_SlicePlan(target, len(features), slice_rows, product) for target in targets]

        for piece, begin in enumerate(range(0, len(features), slice_rows)):
            rows = features[begin : begin + slice_rows].detach()
            logits = _slice_logits(rows, student_weight, temperature, bias)
            log_sum = torch.logsumexp(logits, dim=1)
            # d loss / d logits = mass * softmax(student) - sum of weighted targets
            gradient, mass = None, log_sum.new_zeros(len(rows))
            for number, plan in enumerate(plans):
                taught = plan.slice(piece, begin)
                if taught is None:
                    continue
                local, coefficients, probabilities = taught
                cross = log_sum[local] - torch.linalg.vecdot(probabilities, logits[local])
                terms[number] += (coefficients * cross).sum()
                if not need:
                    continue
                probabilities.mul_(coefficients[:, None]).neg_()
                if isinstance(local, slice):
                    mass += coefficients
                    gradient = probabilities if gradient is None else gradient.add_(probabilities)
                else:
                    gradient = torch.zeros_like(logits) if gradient is None else gradient
                    mass.index_add_(0, local, coefficients)
                    gradient.index_add_(0, local, probabilities)
            if gradient is not None:
                gradient.add_(logits.sub_(log_sum[:, None]).exp_().mul_(mass[:, None]))
                grads.add(begin, gradient, rows, student_weight, temperature)

        if need:
            ctx.has_bias = bias is not None
            ctx.save_for_backward(*grads.finish())
        ctx.mark_non_differentiable(terms)
        return terms.sum(), terms

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, _grad_terms):  # noqa: ANN001
        grads = [grad * grad_loss.to(grad.dtype) for grad in ctx.saved_tensors]
        return grads[0], grads[1], grads[2] if ctx.has_bias else None, None, None, None


class _Gradients:
    """Sums of the slices' gradient products; half precision is kept off its subnormals."""

    def __init__(self, features: Tensor, weight: Tensor, bias: Tensor | None, total: torch.dtype):
        self.features = torch.zeros_like(features, dtype=total)
        self.weight = torch.zeros_like(weight, dtype=total)
        self.bias = torch.zeros(
            0 if bias is None else len(weight), dtype=total, device=weight.device
        )
        self.like = (features.dtype, weight.dtype)

    def add(
        self, begin: int, gradient: Tensor, rows: Tensor, weight: Tensor, temperature: float
    ) -> None:
        if len(self.bias):
            self.bias += gradient.sum(0)
        here = self.features[begin : begin + len(rows)]
        if weight.dtype in (torch.float16, torch.bfloat16):
            # fp16 ends at 6e-8 and the entries are about coefficient / P: bring the largest to 1.
            scale = gradient.abs().amax().clamp_min_(1e-30)
            gradient = (gradient / scale).to(weight.dtype)
            here.copy_(gradient @ weight).mul_(scale / temperature)
            product = (gradient.T @ rows.to(weight.dtype)).to(self.weight.dtype)
            self.weight.add_(product.mul_(scale / temperature))
        else:
            torch.mm(gradient, weight, out=here).div_(temperature)
            self.weight.addmm_(gradient.T, rows.to(weight.dtype), alpha=1 / temperature)

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.features.to(self.like[0]), self.weight.to(self.like[1]), self.bias


class _SlicePlan:
    """Which pairs of one target fall into each slice of student rows.

    Borders are looked up once: a mask in every slice would cost a device synchronisation each.
    """

    def __init__(self, target: Target, num_rows: int, slice_rows: int, product: torch.dtype):
        self.target = target
        self.weight = target.teacher.weight.detach().to(product) if target.factored else None
        order = torch.argsort(target.student_rows, stable=True)
        self.student_rows = target.student_rows[order]
        self.teacher_rows = order if target.teacher_rows is None else target.teacher_rows[order]
        self.coefficients = target.coefficients[order]
        device = self.student_rows.device
        self.aligned = len(self.student_rows) == num_rows and torch.equal(
            self.student_rows, torch.arange(num_rows, device=device)
        )
        starts = torch.arange(0, num_rows + slice_rows, slice_rows, device=device)
        self.borders = torch.searchsorted(self.student_rows, starts).tolist()

    def slice(self, piece: int, begin: int) -> tuple[slice | Tensor, Tensor, Tensor] | None:
        """Rows within the slice, their coefficients and target probabilities (t, P)."""
        first, last = self.borders[piece], self.borders[piece + 1]
        if first == last:
            return None
        probabilities = self._probabilities(self.teacher_rows[first:last])
        local = slice(None) if self.aligned else self.student_rows[first:last] - begin
        return local, self.coefficients[first:last].to(probabilities.dtype), probabilities

    def _probabilities(self, rows: Tensor) -> Tensor:
        target = self.target
        if not target.factored:
            return target.teacher[rows]
        teacher = target.teacher
        features = teacher.features[rows].detach()
        logits = _slice_logits(features, self.weight, teacher.temperature, teacher.bias)
        if target.log_probability_sum is not None:
            accumulate_log_probability(target.log_probability_sum, logits)
        if target.center is not None:
            logits -= target.center
        return logits.sub_(torch.logsumexp(logits, dim=1, keepdim=True)).exp_()


def accumulate_log_probability(total: Tensor, logits: Tensor) -> None:
    """``total <- log(exp(total) + sum_rows softmax(logits))`` for (s, P) logits, which stay."""
    log_p = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    torch.logaddexp(total, torch.logsumexp(log_p, dim=0), out=total)


def log_probability_sum(logits: PrototypeLogits, *, slice_rows: int = 64) -> Tensor:
    """(P,) ``log sum_rows softmax(logits)`` in slices, for centring in probability space.

    A logsumexp of log-softmax, so that a prototype no row chooses gives a large negative number
    and not -inf (all are -inf without any row).
    """
    rows = logits.features.detach()
    weight = logits.weight.detach().to(_product_dtype(rows))
    total = rows.new_full((len(weight),), -torch.inf, dtype=_accumulation_dtype(rows))
    for begin in range(0, len(rows), slice_rows):
        piece = rows[begin : begin + slice_rows]
        accumulate_log_probability(
            total, _slice_logits(piece, weight, logits.temperature, logits.bias)
        )
    return total


def _slice_logits(rows: Tensor, weight: Tensor, temperature: float, bias: Tensor | None) -> Tensor:
    total = _accumulation_dtype(rows)
    with torch.autocast(rows.device.type, enabled=False):
        logits = (rows.to(weight.dtype) @ weight.T).to(total)
        logits = logits.mul_(1 / temperature) if not logits.requires_grad else logits / temperature
        if bias is not None:
            logits = logits + bias if logits.requires_grad else logits.add_(bias.detach())
    return logits


def _product_dtype(features: Tensor) -> torch.dtype:
    """Under autocast the large products run in its dtype; softmax and sums stay in float32."""
    device = features.device.type
    if torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return _accumulation_dtype(features)


def _accumulation_dtype(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32
