"""Attention of the class token, against each library's own matrices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from s3pt_mm.weights.attention import tokens_and_attention
from s3pt_mm.weights.timm_vit import TimmViT
from tests.test_weights.test_public import DINOV2, DINOV3, REGISTERS


@pytest.mark.parametrize(
    'settings', [DINOV2, REGISTERS, DINOV3], ids=['dinov2', 'registers', 'dinov3']
)
def test_timm(settings: dict) -> None:
    """timm's unfused attention keeps its matrix; rotary positions are in it."""
    model = TimmViT(**settings).eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    side = model.patch_size[0]
    images = torch.randn(2, 3, 3 * side, 4 * side)
    tokens, attention = tokens_and_attention(model, images)
    last, kept = model.model.blocks[-1].attn, []
    last.fused_attn = False
    last.attn_drop.register_forward_hook(lambda module, given, out: kept.append(out))
    (all_tokens,) = model(images)
    extra = model.num_extra_tokens
    assert attention.shape == (2, 3, 12)
    torch.testing.assert_close(attention, kept[0][:, :, 0, extra:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(tokens, all_tokens[:, extra:], rtol=1e-4, atol=1e-5)
    for block in model.model.blocks:
        block.attn.fused_attn = False
    with pytest.raises(ValueError, match='a way of its own'):
        tokens_and_attention(model, images)


def test_mmpretrain() -> None:
    from mmpretrain.models import VisionTransformer

    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    model = VisionTransformer(arch=arch, img_size=32, patch_size=16, out_type='raw')
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.eval()
    kept = []
    model.layers[-1].attn.qkv.register_forward_hook(lambda module, given, out: kept.append(out))
    _, attention = tokens_and_attention(model, torch.randn(2, 3, 32, 48))
    query, key, _ = kept[0].view(2, 7, 3, 2, 8).permute(2, 0, 3, 1, 4)
    expected = (query @ key.transpose(2, 3) / 8**0.5).softmax(-1)[:, :, 0, 1:]
    torch.testing.assert_close(attention, expected)
