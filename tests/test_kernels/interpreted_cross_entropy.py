"""Runs on Triton's interpreter, in a process of its own: see test_cross_entropy.py."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.kernels import cross_entropy as kernels
from s3pt_mm.kernels.cross_entropy import Side
from s3pt_mm.method.losses import PrototypeLogits, Target, sliced_cross_entropy

CASES = [
    # pairs, prototypes, width, dtype: less than a tile; then two tiles of rows, and splits of two
    # tiles of prototypes, with nothing a multiple of anything
    (3, 40, 6, torch.float32),
    (3, 40, 6, torch.float16),
    (70, 230, 20, torch.bfloat16),
]


def sides(pairs: int, count: int, width: int, dtype: torch.dtype) -> tuple[Side, Side]:
    def side() -> Side:
        rows = torch.nn.functional.normalize(torch.randn(pairs, width), dim=1)
        factor = 5 + 10 * torch.rand(count)
        return Side(
            rows.to(dtype), torch.randn(count, width).to(dtype), factor, 700 + torch.randn(count)
        )

    return side(), side()


def logits(side: Side, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(T, P) the definition, in float64."""
    return rows.double() @ weight.double().T * side.factor.double() + side.bias.double()


@pytest.mark.parametrize(('pairs', 'count', 'width', 'dtype'), CASES)
def test_both_passes_equal_the_plain_form(
    pairs: int, count: int, width: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    student, teacher = sides(pairs, count, width, dtype)
    center, weight = torch.randn(count), torch.rand(pairs) / pairs
    shifted = teacher._replace(bias=teacher.bias - center)

    rows = student.rows.double().requires_grad_()
    # Gradient of f v: the kernel leaves the factor to the caller.
    scaled = (student.factor.double()[:, None] * student.weight.double()).requires_grad_()
    bias = student.bias.double().requires_grad_()
    s = rows @ scaled.T + bias
    u = logits(teacher, teacher.rows, teacher.weight)
    p = torch.softmax(u - center, 1)
    cross = (p * s).sum(1)
    loss = (weight * (s.logsumexp(1) - cross)).sum()

    sums = kernels.forward(student, shifted, center)
    close = dict(rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sums.student.double(), s.logsumexp(1).detach(), **close)
    torch.testing.assert_close(sums.teacher.double(), (u - center).logsumexp(1), **close)
    torch.testing.assert_close(sums.cross.double(), cross.detach(), **close)
    torch.testing.assert_close(sums.uncentered.double(), u.logsumexp(1), **close)
    column = torch.log_softmax(u, 1).logsumexp(0)
    torch.testing.assert_close(
        kernels.column_log_sum(teacher, sums.uncentered).double(), column, **close
    )

    found = kernels.backward(student, shifted, sums, weight, need_prototypes=True)
    wanted = torch.autograd.grad(loss, (rows, scaled, bias))
    error = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() <= error * theirs.norm()
    alone = kernels.backward(student, shifted, sums, weight, need_prototypes=False)
    assert torch.equal(alone[0], found[0]) and alone[1:] == (None, None)


def test_no_pair_and_no_weight() -> None:
    student, teacher = sides(0, 40, 6, torch.float32)
    sums = kernels.forward(student, teacher, torch.zeros(40))
    by_row, by_weight, by_bias = kernels.backward(
        student, teacher, sums, torch.zeros(0), need_prototypes=True
    )
    assert by_row.shape == (0, 6) and not by_weight.any() and not by_bias.any()
    student, teacher = sides(2, 40, 6, torch.float32)
    sums = kernels.forward(student, teacher, torch.zeros(40))
    for grad in kernels.backward(student, teacher, sums, torch.zeros(2), need_prototypes=True):
        assert not grad.any()


@pytest.mark.parametrize('gain', [False, True])
def test_loss_equals_the_sliced_form(gain: bool) -> None:
    """Two targets of one student as training has them: its other view, and some neighbours."""
    torch.manual_seed(0)

    def unit(rows: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(rows, 16), dim=1)

    weight, bias = torch.randn(40, 16).requires_grad_(), torch.randn(40).requires_grad_()
    gains = torch.rand(40, 1).add_(0.5).requires_grad_() if gain else None
    student = PrototypeLogits(unit(9).requires_grad_(), weight, 0.1, bias, gains)
    leaves = [student.features, weight, bias] + [gains] * gain
    teacher = PrototypeLogits(unit(9), torch.randn(40, 16), 0.05, torch.randn(40))
    few = PrototypeLogits(unit(3), teacher.weight, 0.05)

    def run(implementation: str, *, half: bool) -> list[torch.Tensor]:
        total = torch.full((40,), -torch.inf)
        targets = [
            Target(teacher, torch.arange(9), torch.ones(9) / 9, log_probability_sum=total),
            Target(few, torch.tensor([7, 0, 7]), torch.ones(3), center=torch.linspace(0, 1, 40)),
        ]
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            loss, terms = sliced_cross_entropy(student, targets, implementation=implementation)
        return [loss, terms, total, *torch.autograd.grad(3 * loss, leaves)]

    for truth, ours in zip(run('plain', half=False), run('kernel', half=True), strict=True):
        # What rounding rows and prototypes to bf16 does to logits of up to 40; the plain form under
        # autocast is as far away.
        assert ours.dtype == truth.dtype
        assert (ours - truth).detach().norm() < 0.03 * truth.detach().norm()
