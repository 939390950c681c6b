"""Layers run with few kernels give what mmpretrain's own forward gives, gradients too."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from s3pt_mm.method import encoder_layers
from s3pt_mm.method.backbone import PretrainVisionTransformer

TINY = dict(
    arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
    img_size=32,
    patch_size=8,
    out_type='raw',
    drop_path_rate=0.5,
)


def made(training: bool = True) -> PretrainVisionTransformer:
    torch.manual_seed(0)
    backbone = PretrainVisionTransformer(**TINY)
    backbone.init_weights()
    for parameter in backbone.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    backbone.train(training)
    return backbone


def hosts(backbone: PretrainVisionTransformer, images: torch.Tensor) -> torch.Tensor:
    backbone.plain = False
    return backbone(images)[-1]


@pytest.mark.parametrize('half', [None, torch.bfloat16])
@pytest.mark.parametrize('training', [True, False])
def test_they_are_the_hosts(half: torch.dtype | None, training: bool) -> None:
    ours, host = made(training), made(training)
    images = torch.randn(6, 3, 32, 32)
    weight = torch.randn(6, 17, 16)
    found = []
    for backbone, forward in ((ours, lambda b, x: b(x)[-1]), (host, hosts)):
        torch.manual_seed(1)  # the same branches are dropped
        with torch.autocast('cpu', dtype=half, enabled=half is not None):
            out = forward(backbone, images)
        (out * weight).sum().backward()
        found.append([out.detach(), *(p.grad for p in backbone.parameters())])
    assert found[0][0].dtype == torch.float32
    # The host draws its branches in bfloat16, which this seed does not mind.
    tolerance = dict(rtol=1e-4, atol=1e-5) if half is None else dict(rtol=0.05, atol=0.3)
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


def test_without_drop_path_the_bits_are_the_hosts() -> None:
    backbone = made(training=False)
    images = torch.randn(3, 3, 32, 32)
    for half in (None, torch.bfloat16):
        with torch.autocast('cpu', dtype=half, enabled=half is not None), torch.no_grad():
            backbone.plain = True
            assert torch.equal(backbone(images)[-1], hosts(backbone, images))


def test_branches_drop_at_their_rate_and_keep_the_mean() -> None:
    keep = torch.tensor([[1.0, 0.75], [0.5, 0.9]])
    shares = encoder_layers.drop_path_shares(keep, 20000)
    assert bool((shares[0, 0] == 1).all())
    assert torch.allclose((shares > 0).float().mean(2), keep, atol=0.02)
    assert torch.allclose(shares.mean(2), torch.ones(2, 2), atol=0.04)


def test_a_frozen_weight_gets_no_gradient_and_the_others_do() -> None:
    backbone = made()
    frozen = backbone.layers[1].attn.proj.weight.requires_grad_(False)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        backbone(torch.randn(2, 3, 32, 32))[-1].float().square().sum().backward()
    assert frozen.grad is None
    assert all(p.grad is not None for p in backbone.parameters() if p is not frozen)
    assert all(p.grad.dtype == torch.float32 for p in backbone.parameters() if p is not frozen)


def test_what_is_not_plain_goes_the_hosts_way() -> None:
    backbone = made()
    assert backbone.plain
    seen: list[torch.Tensor] = []
    backbone.layers[2].attn.register_forward_hook(lambda module, given, out: seen.append(out))
    copy.deepcopy(backbone)(torch.randn(1, 3, 32, 32))
    assert len(seen) == 1
    layer = backbone.layers[0]
    assert encoder_layers.is_plain(layer)
    layer.attn.proj_drop = nn.Dropout(0.1)
    assert not encoder_layers.is_plain(layer)
    scaled = PretrainVisionTransformer(**TINY, layer_scale_init_value=0.1)
    assert not scaled.plain and scaled(torch.randn(1, 3, 32, 32))[-1].shape == (1, 17, 16)
