"""The fused slice against the plain one, as written and as torch's compiler makes it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo import utils
from torch._inductor.utils import run_and_get_code

from s3pt_mm.method.losses import PrototypeLogits, Target, sliced_cross_entropy
from s3pt_mm.method.losses.fused_slice import SliceResult, Taught, any_rows, fused_slice
from tests.test_method.test_losses.test_sliced_cross_entropy import P, problem


def gradients(
    student: PrototypeLogits, targets: list[Target], dtype: torch.dtype, **options: object
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Terms, gradients of all leaves, and the first target's column sums."""
    leaves = [
        x for x in (student.features, student.weight, student.gain, student.bias) if x is not None
    ]
    log_sum = torch.full((P,), -torch.inf)
    targets = [replace(targets[0], log_probability_sum=log_sum), *targets[1:]]
    with torch.autocast('cpu', dtype):
        found = sliced_cross_entropy(student, targets, **options)
    return found.terms, list(torch.autograd.grad(found.loss, leaves)), log_sum


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('gain', [False, True])
@pytest.mark.parametrize('slice_rows', [5, 64])
def test_equals_the_plain_form(slice_rows: int, gain: bool, dtype: torch.dtype) -> None:
    """A subset that is taught, a slice of which nobody is; no teacher row, one, and many."""
    torch.manual_seed(0)
    student, (every, few, _) = problem(23, gain=gain)
    late = few.student_rows.argsort()[-1:]
    one = Target(
        replace(few.teacher, features=few.teacher.features[late]),
        few.student_rows[late],
        few.coefficients[late],
    )
    nobody = Target(
        replace(few.teacher, features=few.teacher.features[:0]),
        few.student_rows[:0],
        few.coefficients[:0],
    )
    for targets in ([every, few], [every, one], [every, nobody], [every]):
        calls = []

        def fuse(*args: object, calls: list = calls) -> SliceResult:
            calls.append(args)
            return fused_slice(*args)

        plain = gradients(student, targets, dtype, slice_rows=slice_rows)
        fused = gradients(student, targets, dtype, slice_rows=slice_rows, fuse=fuse)
        assert len(calls) == -(-23 // slice_rows)
        torch.testing.assert_close(fused[0], plain[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fused[2], plain[2], rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(fused[1], plain[1], strict=True):
            error = (mine - theirs).norm() / theirs.norm()
            assert error < (0.01 if dtype == torch.bfloat16 else 0.002)


def test_what_cannot_be_fused_is_not() -> None:
    """Probabilities, a student row taught twice, float32."""
    torch.manual_seed(0)
    student, (every, few, dense) = problem(8)
    twice = replace(every, student_rows=torch.arange(8) // 2)

    def fuse(*_: object) -> SliceResult:
        raise AssertionError('fused')

    for targets in ([every, dense], [twice]):
        with torch.autocast('cpu', torch.bfloat16):
            sliced_cross_entropy(student, targets, fuse=fuse)
    sliced_cross_entropy(student, [every, few], fuse=fuse)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a compiler')
def test_compiled_for_all_numbers_of_objects() -> None:
    torch._dynamo.reset()
    utils.counters.clear()
    compiled: Callable = torch.compile(fused_slice, fullgraph=True)
    own, others, last = torch.randn(3, 16, P).to(torch.bfloat16)
    taught = Taught(others, *torch.randn(4, P), None, torch.rand(16), True)
    few = Taught(last[:8], *torch.randn(4, P), torch.arange(16) // 2, torch.rand(16), False)
    given = (own, *torch.randn(2, P), [taught, few])
    (code,) = run_and_get_code(compiled, *given)[1]
    written = re.findall(rf'empty_strided_cpu\(\((?:16|8), {P}\), \S+ \S+ (\S+)\)', code)
    assert written == ['torch.bfloat16']  # of all tensors of that size the gradient alone
    for rows in (16, 23, 40, 57, 66):
        torch.manual_seed(rows)
        student, (every, few, _) = problem(rows, gain=True)
        plain = gradients(student, [every, few], torch.bfloat16)
        fused = gradients(student, [every, few], torch.bfloat16, fuse=any_rows(compiled))
        torch.testing.assert_close(fused[0], plain[0], rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(fused[1], plain[1], strict=True):
            assert (mine - theirs).norm() / theirs.norm() < 0.01
    assert (
        utils.counters['stats']['unique_graphs'] <= 3  # the first, then one for all others
    )  # a second for other numbers than the first
