"""What teaches which student rows, and which of these pairs fall into each slice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from s3pt_mm.common.host import send
from s3pt_mm.method.losses.fused_slice import Taught
from s3pt_mm.method.losses.prototype_logits import (
    PrototypeLogits,
    SliceLogits,
    accumulate_log_probability,
)


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


class SlicePlan:
    """Which pairs of one target fall into each slice of student rows.

    Borders are looked up once, on the host: a mask in every slice would make it wait for each.
    """

    def __init__(self, target: Target, num_rows: int, slice_rows: int) -> None:
        self.target = target
        teacher = target.teacher
        self.teacher = SliceLogits(teacher) if isinstance(teacher, PrototypeLogits) else teacher
        self.num_rows, self.slice_rows = num_rows, slice_rows
        # Rows are known on the host; what indexes tensors is sent, and nothing is waited for.
        rows, order = target.student_rows.cpu().sort(stable=True)
        taught = order if target.teacher_rows is None else target.teacher_rows.cpu()[order]
        self.aligned = len(rows) == num_rows and torch.equal(rows, torch.arange(num_rows))
        starts = torch.arange(0, num_rows + slice_rows, slice_rows)
        self.borders = torch.searchsorted(rows, starts).tolist()
        coefficients, device = target.coefficients, target.coefficients.device
        self.host_rows = rows
        self.student_rows, self.teacher_rows = send(rows, device), send(taught, device)
        in_order = torch.equal(order, torch.arange(len(order)))
        dtype = self.teacher.dtype if isinstance(self.teacher, Tensor) else self.teacher.total
        coefficients = coefficients if in_order else coefficients[send(order, device)]
        self.coefficients = coefficients.to(dtype)

    @property
    def fusible(self) -> bool:
        """Whether :meth:`taught` can say it: factored, and at most one teacher a student row."""
        once = bool((self.host_rows[1:] != self.host_rows[:-1]).all())
        every = self.aligned or self.target.log_probability_sum is None
        return self.target.factored and once and every

    def rows(self, begin: int) -> slice:
        """Student rows of the slice."""
        return slice(begin, min(begin + self.slice_rows, self.num_rows))

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

    def taught(self, piece: int, begin: int) -> Taught:
        """The slice as :func:`~s3pt_mm.method.losses.fused_slice.fused_slice` wants it."""
        first, last = self.borders[piece], self.borders[piece + 1]
        teacher, device = self.teacher, self.coefficients.device
        assert isinstance(teacher, SliceLogits)  # fusible
        coefficients, rows = self.coefficients[first:last], None
        taught = self.teacher_rows[first:last]
        if not self.aligned:
            here = self.rows(begin)
            position = torch.zeros(here.stop - here.start, dtype=torch.int64)
            position[self.host_rows[first:last] - begin] = torch.arange(last - first)
            rows = send(position, device)
            dense = coefficients.new_zeros(len(position))
            coefficients = dense.index_copy_(0, self.student_rows[first:last] - begin, coefficients)
            if last - first < 2:
                # Rows that nobody reads, so that neither none nor one is a case of its own.
                taught = torch.cat([taught, taught.new_zeros(2)])
        bias, center = teacher.bias, self.target.center
        shift = bias
        if center is not None:
            shift = -center if bias is None else bias - center
        if self.target.num_rows:
            products = teacher.products(taught)
        else:  # no neighbour in the whole batch: the first steps
            products = teacher.weight.new_zeros(len(taught), len(teacher.weight))
        wants_columns = self.target.log_probability_sum is not None
        factor = teacher.factor_tensor()
        return Taught(products, factor, bias, center, shift, rows, coefficients, wants_columns)
