"""The sliced loss against its plain form, and what it may hold in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from s3pt_mm.method.losses import (
    Center,
    PrototypeLogits,
    Target,
    cross_image_target,
    cross_view_target,
    sliced_cross_entropy,
)
from s3pt_mm.method.losses.prototype_logits import log_probability_sum

D, P = 6, 40


def unit(rows: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, D), dim=1)


def problem(n: int, *, gain: bool = False) -> tuple[PrototypeLogits, list[Target]]:
    weight = torch.randn(P, D, requires_grad=True)
    bias = torch.randn(P, requires_grad=True)
    gains = torch.rand(P, 1).add_(0.5).requires_grad_() if gain else None
    student = PrototypeLogits(unit(n).requires_grad_(), weight, 0.1, bias, gains)
    teacher = PrototypeLogits(unit(n), torch.randn(P, D), 0.05, torch.randn(P))
    subset = torch.randperm(n)[: n // 3]
    few = PrototypeLogits(unit(len(subset)), teacher.weight, 0.05)
    dense = torch.softmax(torch.randn(4, P), 1)
    shared = torch.randint(0, 4, (n,))
    targets = [
        Target(teacher, torch.arange(n), torch.rand(n), center=torch.randn(P)),
        Target(few, subset, torch.rand(len(subset)), center=torch.randn(P)),
        Target(dense, torch.randint(0, n, (n,)), torch.rand(n), teacher_rows=shared),
    ]
    return student, targets


def dense(logits: PrototypeLogits) -> Tensor:
    """The definition, for autograd."""
    weight = logits.weight
    if logits.gain is not None:
        weight = logits.gain * torch.nn.functional.normalize(weight, dim=1)
    bias = 0 if logits.bias is None else logits.bias
    return logits.features @ weight.T / logits.temperature + bias


def plain(student: PrototypeLogits, targets: list[Target]) -> Tensor:
    log_q = torch.log_softmax(dense(student), 1)
    terms = []
    for target in targets:
        if target.factored:
            center = 0 if target.center is None else target.center
            p = torch.softmax(dense(target.teacher) - center, 1)
        else:
            p = target.teacher
        p = p if target.teacher_rows is None else p[target.teacher_rows]
        cross = -(p * log_q[target.student_rows]).sum(1)
        terms.append((target.coefficients * cross).sum())
    return torch.stack(terms)


@pytest.mark.parametrize('gain', [False, True])
@pytest.mark.parametrize('slice_rows', [1, 5, 64])
@pytest.mark.parametrize('n', [1, 7, 23])
def test_value_and_gradient_equal_the_plain_form(n: int, slice_rows: int, gain: bool) -> None:
    student, targets = problem(n, gain=gain)
    leaves = [student.features, student.weight, student.bias] + [student.gain] * gain
    torch.testing.assert_close(student.dense(), dense(student).detach(), rtol=1e-5, atol=1e-5)
    result = sliced_cross_entropy(student, targets, slice_rows=slice_rows)
    fast = torch.autograd.grad(3 * result.loss, leaves)
    wanted = plain(student, targets)
    torch.testing.assert_close(result.terms, wanted.detach(), rtol=1e-5, atol=1e-5)
    for a, b in zip(fast, torch.autograd.grad(3 * wanted.sum(), leaves), strict=False):
        # float32 against float32: to 1e-5 of the gradient's own scale
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize('gain', [False, True])
def test_autocast_stays_close(gain: bool) -> None:
    student, targets = problem(20, gain=gain)
    leaves = [student.features, student.weight]
    wanted = sliced_cross_entropy(student, targets)
    exact = torch.autograd.grad(wanted.loss, leaves)
    with torch.autocast('cpu', torch.bfloat16):
        result = sliced_cross_entropy(student, targets)
    assert result.loss.dtype == torch.float32
    torch.testing.assert_close(result.loss, wanted.loss, rtol=0.02, atol=0.02)
    for a, b in zip(torch.autograd.grad(result.loss, leaves), exact, strict=False):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_no_rows_is_zero_with_zero_gradient() -> None:
    weight = torch.randn(P, D, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    student = PrototypeLogits(torch.zeros(0, D, requires_grad=True), weight, 0.1)
    target = Target(PrototypeLogits(torch.zeros(0, D), weight.detach(), 0.1), none, torch.zeros(0))
    result = sliced_cross_entropy(student, [target])
    result.loss.backward()
    assert result.loss.item() == 0 and weight.grad.abs().max() == 0


def test_weight_normalised_prototypes_turn_and_stay_finite() -> None:
    """A held gain gets no gradient, the direction's is orthogonal to it, a zero row is legal."""
    weight = torch.randn(P, D)
    weight[3] = 0
    weight.requires_grad_()
    student = PrototypeLogits(unit(4), weight, 0.1, gain=torch.ones(P, 1))
    target = Target(PrototypeLogits(unit(4), weight, 0.05), torch.arange(4), torch.ones(4))
    sliced_cross_entropy(student, [target]).loss.backward()
    assert student.gain.grad is None and torch.isfinite(weight.grad).all()
    torch.testing.assert_close((weight.grad * weight.detach()).sum(1), torch.zeros(P))


def test_frozen_prototypes_form_no_gradient_product() -> None:
    features = unit(4).requires_grad_()
    frozen = PrototypeLogits(features, torch.randn(P, D), 0.1, gain=torch.ones(P, 1))
    target = Target(PrototypeLogits(unit(4), frozen.weight, 0.05), torch.arange(4), torch.ones(4))
    products = []

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
            if 'mm' in func.__name__:
                products.append(func)
            return func(*args, **(kwargs or {}))

    with Counter():
        sliced_cross_entropy(frozen, [target]).loss.backward()
    assert len(products) == 3  # student logits, teacher logits, gradient of the features
    assert features.grad is not None


def test_second_backward_is_refused() -> None:
    student, targets = problem(4)
    loss = sliced_cross_entropy(student, targets).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='once'):
        loss.backward()


def test_teacher_gets_no_gradient() -> None:
    teacher_weight = torch.randn(P, D, requires_grad=True)
    student = PrototypeLogits(unit(4).requires_grad_(), torch.randn(P, D, requires_grad=True), 0.1)
    teacher = PrototypeLogits(unit(4).requires_grad_(), teacher_weight, 0.05)
    target = Target(teacher, torch.arange(4), torch.ones(4))
    sliced_cross_entropy(student, [target]).loss.backward()
    assert teacher_weight.grad is None and teacher.features.grad is None


def test_mismatched_lengths_are_named() -> None:
    student, targets = problem(6)
    bad = Target(targets[0].teacher, torch.arange(5), torch.ones(5))
    with pytest.raises(ValueError, match=r'target 0: .*\[5, 5, 6\]'):
        sliced_cross_entropy(student, [bad])


class _PeakTensor(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return out


def test_never_objects_by_prototypes() -> None:
    peaks = []
    for n in (200, 800):
        weight = torch.randn(4096, D, requires_grad=True)
        student = PrototypeLogits(unit(n).requires_grad_(), weight, 0.1)
        teacher = PrototypeLogits(unit(n), weight.detach(), 0.05)
        target = cross_view_target(teacher, torch.zeros(4096), global_objects=n // 2)
        with _PeakTensor() as peak:
            sliced_cross_entropy(student, [target], slice_rows=16).loss.backward()
        peaks.append(peak.elements)
    assert peaks[0] == peaks[1] == 16 * 4096


def test_unequal_counts_of_the_two_directions_by_hand() -> None:
    """One consistent object of view 1, two of view 2; each direction has its own divisor."""
    student_rows = torch.log_softmax(torch.randn(6, 3), 1)
    student = PrototypeLogits(student_rows, torch.eye(3), 1.0)
    one_hot = torch.eye(3)[[0, 1, 2]] * 200  # neighbours: view 1's, then view 2's two
    target = cross_image_target(
        PrototypeLogits(one_hot, torch.eye(3), 1.0),
        torch.zeros(3),
        consistent_view1=torch.tensor([False, True, False]),
        consistent_view2=torch.tensor([True, False, True]),
        global_counts=torch.tensor([1.0, 2.0]),
    )
    # View 1's neighbour teaches view 2's object 1 (row 4); view 2's teach rows 0 and 2 of view 1.
    first = -student_rows[4, 0]
    second = -(student_rows[0, 1] + student_rows[2, 2]) / 2
    loss = sliced_cross_entropy(student, [target]).loss
    torch.testing.assert_close(loss, (first + second) / 2)


def test_log_probability_sum_is_a_by_product_and_never_infinite() -> None:
    weight = torch.zeros(P, D)
    weight[0] = 1000.0  # nearly everybody's choice; the others underflow as probabilities
    teacher = PrototypeLogits(torch.ones(9, D), weight, 1.0)
    wanted = log_probability_sum(teacher, slice_rows=2)
    plain_sum = torch.logsumexp(torch.log_softmax(teacher.dense().double(), 1), 0)
    torch.testing.assert_close(wanted.double(), plain_sum)
    assert torch.isfinite(wanted).all() and float(wanted.min()) < -1000
    collected = torch.full((P,), -torch.inf)
    target = Target(teacher, torch.arange(9), torch.ones(9), log_probability_sum=collected)
    student = PrototypeLogits(unit(9), torch.randn(P, D), 0.1)
    sliced_cross_entropy(student, [target], slice_rows=4)
    torch.testing.assert_close(collected, wanted)


@pytest.mark.parametrize('space', ['logit', 'probability'])
def test_center_moves_by_its_definition_and_stays_without_rows(space: str) -> None:
    center = Center(P, space=space, momentum=0.9)
    logits = PrototypeLogits(unit(11), torch.randn(P, D), 0.05, torch.randn(P))
    center.observe(logits, slice_rows=4)
    assert not center.value.any()  # it moves with the optimiser
    center.commit()
    if space == 'logit':
        mean = (logits.features @ logits.weight.T).mean(0)
    else:
        mean = torch.softmax(logits.dense(), 1).mean(0).log()
    torch.testing.assert_close(center.value, 0.1 * mean, rtol=1e-4, atol=1e-5)
    before = center.value.clone()
    empty = PrototypeLogits(torch.zeros(0, D), logits.weight, 0.05, logits.bias)
    center.observe(empty)
    center.commit()
    assert torch.equal(center.value, before)
