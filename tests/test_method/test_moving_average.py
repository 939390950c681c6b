"""The teacher follows the student, or the device finds that it must not."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.method.moving_average import follow


@pytest.mark.parametrize('step', [0.0, 0.004, 0.3, 1.0])
def test_the_flag_changes_nothing_but_whether(step: float) -> None:
    torch.manual_seed(0)
    shapes = [(5, 7), (3,), (), (2, 3, 4)]
    teachers, students = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    plain, free, held = ([tensor.clone() for tensor in teachers] for _ in range(3))
    given = [tensor.clone() for tensor in students]
    follow(plain, students, step)
    follow(free, students, step, torch.zeros(1))
    follow(held, students, step, torch.ones(1))
    for index, teacher in enumerate(teachers):
        wanted = teacher + step * (students[index] - teacher)
        torch.testing.assert_close(plain[index], wanted)
        torch.testing.assert_close(free[index], plain[index], rtol=1e-6, atol=1e-7)
        assert torch.equal(held[index], teacher)
        assert torch.equal(students[index], given[index])


def test_a_refused_step_with_infinities_leaves_none() -> None:
    teacher, student = [torch.ones(4)], [torch.full((4,), torch.inf)]
    follow(teacher, student, 0.1, torch.ones(1))
    assert torch.equal(teacher[0], torch.ones(4))
