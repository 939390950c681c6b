from __future__ import annotations

import torch
from torch.nn import functional as F

from s3pt_mm.heads.weight_norm import weight_norm


def test_value_and_gradient() -> None:
    direction = torch.randn(7, 5, dtype=torch.double, requires_grad=True)
    gain = torch.randn(7, 1, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(weight_norm(direction, gain), F.normalize(direction, dim=1) * gain)
    assert torch.autograd.gradcheck(weight_norm, (direction, gain))


def test_held_gain_gets_no_gradient() -> None:
    direction = torch.randn(3, 4, requires_grad=True)
    gain = torch.ones(3, 1)
    weight_norm(direction, gain).sum().backward()
    assert gain.grad is None
    # Turning is all that is left: the gradient is orthogonal to the direction.
    torch.testing.assert_close((direction.grad * direction.detach()).sum(1), torch.zeros(3))


def test_zero_direction_is_finite() -> None:
    direction = torch.zeros(2, 4, requires_grad=True)
    weight_norm(direction, torch.ones(2, 1)).sum().backward()
    assert torch.isfinite(direction.grad).all()
