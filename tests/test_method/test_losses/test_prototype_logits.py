"""The way back through the weight norm, against autograd, whole and in pieces."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.method.losses import prototype_logits
from s3pt_mm.method.losses.prototype_logits import row_norms, through_weight_norm


@pytest.mark.parametrize('rows', [4, 5, 4096])
def test_the_gradient_of_direction_and_gain(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prototype_logits, '_ROWS', rows)
    torch.manual_seed(0)
    direction = torch.randn(13, 6, dtype=torch.float64, requires_grad=True)
    gain = torch.rand(13, 1, dtype=torch.float64).add_(0.5).requires_grad_()
    grad, factor = torch.randn(13, 6, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)
    weight = gain * direction / direction.norm(dim=1, keepdim=True)
    wanted = torch.autograd.grad(weight, (direction, gain), grad * factor)
    with torch.no_grad():
        by_gain = through_weight_norm(grad, factor, direction, gain, row_norms(direction))
    torch.testing.assert_close(grad, wanted[0])
    torch.testing.assert_close(by_gain, wanted[1])
