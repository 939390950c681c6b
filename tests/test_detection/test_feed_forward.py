from __future__ import annotations

import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN

from s3pt_mm.detection.petr import feed_forward as module
from s3pt_mm.detection.petr.feed_forward import DroppedReLU, LeanFFN


@pytest.mark.parametrize('training', [True, False])
def test_equals_mmcv_without_dropout(training: bool) -> None:
    host = FFN(8, 16).train(training)
    ours = LeanFFN(8, 16).train(training)
    ours.load_state_dict(host.state_dict(), strict=True)
    x, other = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    assert torch.equal(ours(x), host(x))
    assert torch.equal(ours(x, other), host(x, other))


def test_dropped_relu_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = torch.rand(6, 50) > 0.3
    monkeypatch.setattr(module, 'keep_mask', lambda count, p: (keep.flatten(), 0.7))
    x = torch.randn(6, 50, requires_grad=True)
    expected = x.relu() * keep / 0.7
    out = DroppedReLU.apply(x, 0.3)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(x)
    found, wanted = (torch.autograd.grad(one, x, grad)[0] for one in (out, expected))
    torch.testing.assert_close(found, wanted)


def test_dropout_acts_in_training_with_the_right_mean() -> None:
    ours = LeanFFN(64, 4096, ffn_drop=0.5)
    x = torch.randn(40, 64)
    noisy, exact = ours(x, torch.zeros_like(x)), ours.eval()(x, torch.zeros_like(x))
    assert not torch.equal(noisy, exact)
    hidden = ours.layers[0].eval()(x)
    dropped = DroppedReLU.apply(ours.layers[0][0](x), 0.5)
    assert float(dropped.mean()) == pytest.approx(float(hidden.mean()), rel=0.02)
    zeros = (dropped == 0) & (hidden > 0)
    assert float(zeros.sum() / (hidden > 0).sum()) == pytest.approx(0.5, abs=0.02)
