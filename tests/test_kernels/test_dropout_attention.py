"""Attention in blocks against its plain form, with the blocks' own dropout bits."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.kernels import dropout_attention as module
from s3pt_mm.kernels.dropout_attention import DropoutAttention, _Blocks, keep_mask


def plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor, share: float
) -> torch.Tensor:
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1).mul(keep / share) @ v


@pytest.mark.parametrize('queries', [7, 300])  # one slice, and two with a rest
def test_dropout_attention_equals_the_plain_form(
    monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    keep, share = torch.rand(2, queries, 11) > 0.3, 0.7
    monkeypatch.setattr(module, 'keep_mask', lambda count, p: (keep.flatten(), share))
    inputs = [torch.randn(2, n, 4, requires_grad=True) for n in (queries, 11, 11)]
    grad = torch.randn(2, queries, 4)
    out, expected = DropoutAttention.apply(*inputs, 0.3), plain(*inputs, keep, share)
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad(out, inputs, grad)
    wanted = torch.autograd.grad(expected, inputs, grad)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('scale', [1.0, 30.0])  # 30: logits of some hundreds, e^x would overflow
@pytest.mark.parametrize('pool', [100, 2**21])  # fewer bits than weights, and one for each
def test_blocks_equal_the_plain_form(
    monkeypatch: pytest.MonkeyPatch, scale: float, pool: int
) -> None:
    monkeypatch.setattr(module, '_BLOCK', (4, 8))
    monkeypatch.setattr(module, '_POOL', pool)
    size = (2, 11, 21)
    inputs = [(scale * torch.randn(2, n, 4)).requires_grad_() for n in (11, 21, 21)]
    torch.manual_seed(1)
    blocks = _Blocks(size)
    bits, share = keep_mask(blocks.bits, 0.3)
    keep = torch.full(size, float('nan'))
    places = torch.arange(2)[:, None, None]
    rows, columns = torch.arange(11)[:, None] + 11 * places, torch.arange(21)[:, None] + 0 * places
    for (row,), (column,), (kept,) in blocks.each(bits.float(), [], [rows], [columns]):
        keep.flatten(0, 1)[row, column.T] = kept
    assert blocks.bits == min(pool, keep.numel())
    torch.manual_seed(1)
    out = DropoutAttention.apply(*inputs, 0.3)
    expected = plain(*inputs, keep, share)
    torch.testing.assert_close(out, expected, atol=1e-5 * scale, rtol=1e-4)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, inputs, grad)
    wanted = torch.autograd.grad(expected, inputs, grad)
    torch.testing.assert_close(found, wanted, atol=1e-4 * scale, rtol=1e-3)


def test_share_of_dropped_weights() -> None:
    keep, share = keep_mask(200_001, 0.1)
    assert keep.shape == (200_001,)
    assert share == pytest.approx(0.9, abs=1e-4)
    assert float(keep.float().mean()) == pytest.approx(share, abs=0.004)
