from __future__ import annotations

import pytest
import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention

from s3pt_mm.detection.petr.attention import LeanMultiheadAttention, attention


def pair(drop: float = 0.0, **options: str) -> tuple[MultiheadAttention, LeanMultiheadAttention]:
    host = MultiheadAttention(16, 4, attn_drop=drop, batch_first=True)
    ours = LeanMultiheadAttention(
        embed_dims=16, num_heads=4, attn_drop=drop, batch_first=True, **options
    )
    torch.nn.init.normal_(host.attn.in_proj_bias)
    ours.load_state_dict(host.state_dict(), strict=True)
    return host, ours


@pytest.mark.parametrize('padded', [False, True])
def test_equals_mmcv(padded: bool) -> None:
    host, ours = pair()
    query, key = torch.randn(2, 5, 16), torch.randn(2, 9, 16)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 6:] = padded
    inputs = dict(
        value=torch.randn(2, 9, 16),
        query_pos=torch.randn(2, 5, 16),
        key_pos=torch.randn(2, 9, 16),
        key_padding_mask=mask if padded else None,
    )
    torch.testing.assert_close(ours(query, key, **inputs), host(query, key, **inputs))


def test_self_attention_with_mask_equals_mmcv() -> None:
    host, ours = pair()
    query, position = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    inputs = dict(query_pos=position, key_pos=position, attn_mask=mask)
    torch.testing.assert_close(ours(query, **inputs), host(query, **inputs))


@pytest.mark.parametrize('implementation', ['plain', 'kernel'])
def test_dropout_acts_in_training_alone(implementation: str) -> None:
    _, ours = pair(drop=0.5, implementation=implementation)
    query, key = torch.randn(1, 5, 16), torch.randn(1, 40, 16)
    assert not torch.equal(ours(query, key), ours(query, key))
    ours.eval()
    assert torch.equal(ours(query, key), ours(query, key))


def test_plain_dropout_is_torchs_own_unless_asked() -> None:
    """Which form runs is seen from its random numbers: the kernel draws others."""
    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    torch.manual_seed(0)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    torch.manual_seed(0)
    assert torch.equal(attention(q, k, v, drop_prob=0.5), wanted)
    torch.manual_seed(0)
    assert not torch.equal(attention(q, k, v, drop_prob=0.5, implementation='kernel'), wanted)
