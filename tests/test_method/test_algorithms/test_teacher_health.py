"""The two figures from which collapse is read, at their ends and in between."""

from __future__ import annotations

import math

import pytest
import torch

from s3pt_mm.method.algorithms.teacher_student import teacher_health


def health(logits: torch.Tensor) -> tuple[float, float]:
    found = teacher_health(logits.log_softmax(1))
    return float(found['teacher_entropy']), float(found['teacher_kl_uniform'])


def test_all_outputs_alike() -> None:
    assert health(torch.zeros(4, 10)) == pytest.approx((math.log(10), 0), abs=1e-6)


def test_one_prototype_takes_all() -> None:
    logits = torch.zeros(4, 10)
    logits[:, 3] = 1e3
    assert health(logits) == pytest.approx((0, math.log(10)), abs=1e-6)


def test_each_image_its_own_prototype() -> None:
    assert health(1e3 * torch.eye(10)) == pytest.approx((0, 0), abs=1e-6)


def test_against_the_definition() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], dtype=torch.float64)
    entropy = -(p * p.log()).sum() / 2
    mean = p.sum(0) / 2
    expected = float(entropy), float((mean * (mean / (1 / 3)).log()).sum())
    assert health(p.log()) == pytest.approx(expected)
