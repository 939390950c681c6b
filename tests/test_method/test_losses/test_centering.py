"""A centre moves with the optimiser's step, and stays where the device refuses the step."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.common.host import Refusal
from s3pt_mm.method.losses import Center, PrototypeLogits
from s3pt_mm.method.losses.fused_slice import Taught, fused_slice


@pytest.mark.parametrize('space', Center.SPACES)
def test_a_refusal_on_the_device(space: str) -> None:
    torch.manual_seed(0)
    logits = PrototypeLogits(torch.randn(6, 4), torch.randn(9, 4), 0.1)
    centres = [Center(9, space=space) for _ in range(3)]
    for centre in centres:
        centre.observe(logits)
    plain, taken, refused = centres
    plain.commit()
    taken.commit(Refusal.of(torch.zeros(1)))
    refused.commit(Refusal.of(torch.ones(1)))
    assert plain.value.any() and torch.equal(taken.value, plain.value)
    assert not refused.value.any()
    refused.commit()  # nothing is left of the refused step
    assert not refused.value.any()


@pytest.mark.parametrize('far', [-300.0, 300.0])
def test_a_far_centre_comes_nearer_when_fused(far: float) -> None:
    """The fused column sums lie within 75 nats of the centre, and are exact where that suffices."""
    torch.manual_seed(0)
    own, teacher = torch.randn(2, 6, 9).bfloat16()
    exact = torch.logsumexp(torch.log_softmax(teacher.float(), 1), 0)
    centre = exact + 1
    centre[0] = far
    ones = torch.ones(())
    taught = Taught(teacher, ones, None, centre, -centre, None, torch.full((6,), 0.1), True)
    (columns,) = fused_slice(own, ones, None, [taught]).columns
    torch.testing.assert_close(columns[1:], exact[1:], rtol=1e-5, atol=1e-5)
    assert columns[0].isfinite()
    assert abs(columns[0] - exact[0]) < abs(far - exact[0])
