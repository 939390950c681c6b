"""One slice of the cross-entropy as one function of products, for ``torch.compile`` to fuse.

Run pass by pass it would fill memory with float32 tensors; the plain form works in place instead
(:mod:`.sliced_cross_entropy`). Fused, products are read from memory in half precision, three to
five times, and one tensor of their size is written: the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Taught(NamedTuple):
    """What one target teaches n student rows, each by one teacher row at most.

    Attributes:
        products: (m, P) the teacher's features times its prototypes, half precision.
        factor: (P,) or (), of the products.
        bias: (P,) added to them, or None.
        center: (P,) subtracted from the logits, or None.
        shift: (P,) the bias less the centre: with one vector more torch's compiler would write the
            target's logits to memory.
        rows: (n,) the teacher's row of each student row; None where it is the same.
        coefficients: (n,) weights in the loss; 0 where nobody teaches.
        wants_columns: Whether the logits' columns are summed for a centre.
    """

    products: Tensor
    factor: Tensor
    bias: Tensor | None
    center: Tensor | None
    shift: Tensor | None
    rows: Tensor | None
    coefficients: Tensor
    wants_columns: bool


class SliceResult(NamedTuple):
    """Of :func:`fused_slice`.

    Attributes:
        gradient: (n, P) d loss / d logits over ``peak``, in the products' dtype.
        peak: () at least half of the largest entry's size, and of its order.
        terms: (number of targets,) of the loss.
        columns: For each target that wants it (P,) ``log sum_rows softmax(logits)``.
    """

    gradient: Tensor
    peak: Tensor
    terms: Tensor
    columns: list[Tensor]


def fused_slice(
    products: Tensor, factor: Tensor, bias: Tensor | None, taught: Sequence[Taught]
) -> SliceResult:
    """Loss and gradient of n student rows; sums and softmax in float32.

    Args:
        products: (n, P) the student's features times its prototypes, half precision.
        factor: (P,) or (), of the products.
        bias: (P,) added to them, or None.
        taught: The targets.
    """
    logits = product_logits(products, factor, bias)
    log_sum = torch.logsumexp(logits, 1, keepdim=True)
    mass = torch.stack([one.coefficients for one in taught]).sum(0)[:, None]
    gradient = mass * (logits - log_sum).exp()
    peak = mass * (logits.amax(1, keepdim=True) - log_sum).exp()
    terms, columns = [], []
    for one in taught:
        if one.wants_columns:
            columns.append(_columns(one))
        own = one.products if one.rows is None else one.products.index_select(0, one.rows)
        teacher = product_logits(own, one.factor, one.shift)
        teacher_sum = torch.logsumexp(teacher, 1, keepdim=True)
        probabilities = (teacher - teacher_sum).exp()
        coefficients = one.coefficients[:, None]
        cross = log_sum - (probabilities * logits).sum(1, keepdim=True)
        terms.append((coefficients * cross).sum())
        gradient = gradient - coefficients * probabilities
        highest = coefficients * (teacher.amax(1, keepdim=True) - teacher_sum).exp()
        peak = torch.maximum(peak, highest)
    largest = peak.amax().clamp_min(1e-30)
    narrow = (gradient / largest).to(products.dtype)
    return SliceResult(narrow, largest, torch.stack(terms), columns)


def any_rows(compiled: Callable[..., SliceResult]) -> Callable[..., SliceResult]:
    """``compiled`` for numbers of rows that change from step to step: torch is told beforehand."""

    def call(
        products: Tensor, factor: Tensor, bias: Tensor | None, taught: Sequence[Taught]
    ) -> SliceResult:
        for rows in (products, *(r for one in taught for r in (one.products, one.coefficients))):
            torch._dynamo.maybe_mark_dynamic(rows, 0)
        return compiled(products, factor, bias, taught)

    return call


def product_logits(products: Tensor, factor: Tensor, bias: Tensor | None) -> Tensor:
    """Float32 logits of half-precision products."""
    logits = products.float() * factor
    return logits if bias is None else logits + bias


def _columns(one: Taught) -> Tensor:
    """(P,) log sum of the rows' softmax, in one pass.

    About the running centre, from which a batch's mean is a few nats away, where the plain form
    finds each column's maximum first. What is 75 away counts as 75: a prototype that no row
    chooses is not -inf, and a centre that is so far off comes nearer with every step.
    """
    logits = product_logits(one.products, one.factor, one.bias)
    log_p = logits - torch.logsumexp(logits, 1, keepdim=True)
    if one.center is None:
        return torch.logsumexp(log_p, 0)
    return one.center + (log_p - one.center).clamp(-75.0, 75.0).exp().sum(0).log()
