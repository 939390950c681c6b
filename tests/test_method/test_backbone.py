"""How the networks of the three methods start, and how a position embedding is resized."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

import s3pt_mm.method.algorithms  # noqa: F401
from s3pt_mm.method.backbone import (
    PretrainVisionTransformer,
    embed_patches,
    resize_position_embedding,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TINY = dict(
    arch=dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16),
    img_size=32,
    patch_size=8,
    out_type='raw',
)


@pytest.mark.parametrize('method', ['dino', 'cribo', 's3pt'])
def test_statistics_are_the_public_codes(method: str) -> None:
    """Truncated normals of 0.02, biases 0, norms 1 and 0, a class token that is drawn, gain 1."""
    cfg = Config.fromfile(CONFIGS / method / 'vits16_nuscenes.py', import_custom_modules=False)
    cfg.model.head.num_prototypes = 512
    cfg.model.backbone.arch = dict(
        embed_dims=384, num_layers=2, num_heads=6, feedforward_channels=1536
    )
    if method != 'dino':
        cfg.model.queue_images = 2
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    student = model.student
    for name, parameter in student.named_parameters():
        value = parameter.detach()
        if 'prototypes' in name or 'patch_embed' in name:
            continue
        if value.ndim > 1:
            enough = 0.08 if value.numel() < 1000 else 0.02
            assert float(value.std()) == pytest.approx(0.02, rel=enough), name
            assert abs(float(value.mean())) < 3e-3, name
        else:
            kind = 1.0 if '.ln' in name and name.endswith('weight') else 0.0
            assert bool((value == kind).all()), name
    # Patch filters are a convolution, which the public code leaves at torch's default.
    filters = student['backbone'].patch_embed.projection.weight
    assert float(filters.std()) == pytest.approx((1 / 768 / 3) ** 0.5, rel=0.02)
    for layer in student['head'].prototype_layers():
        assert bool((layer.weight_g == 1).all())
    for mine, teachers in model.pairs():
        assert torch.equal(mine, teachers)


def test_a_checkpoint_is_not_drawn_over(tmp_path: Path) -> None:
    first = PretrainVisionTransformer(**TINY)
    first.init_weights()
    torch.save(first.state_dict(), tmp_path / 'a.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    second = PretrainVisionTransformer(**TINY, init_cfg=init_cfg)
    second.init_weights()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_scale_factor_moves_the_embedding_and_keeps_its_grid() -> None:
    torch.manual_seed(0)
    embedding = torch.zeros(1, 1 + 14 * 14, 384)
    nn.init.trunc_normal_(embedding, std=0.02)
    resized = resize_position_embedding(embedding, (14, 14), (6, 6))
    assert resized.shape == (1, 37, 384) and torch.equal(resized[:, 0], embedding[:, 0])
    options = dict(**TINY, init='reference')
    by_size = PretrainVisionTransformer(**options, pos_embed_resize='size')
    by_size.init_weights()
    by_scale = PretrainVisionTransformer(**options, pos_embed_resize='scale_factor')
    by_scale.load_state_dict(by_size.state_dict())
    for side, same in ((32, True), (16, False), (24, False)):
        images = torch.randn(2, 3, side, side)
        a, b = by_size(images)[-1], by_scale(images)[-1]
        assert a.shape == b.shape and torch.equal(a, b) == same


@pytest.mark.parametrize('by', ['size', 'scale_factor'])
def test_resizing_is_torchs_bicubic(by: str) -> None:
    torch.manual_seed(0)
    embedding = torch.randn(1, 1 + 14 * 14, 8, dtype=torch.float64)
    image = embedding[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    options = dict(size=(6, 9)) if by == 'size' else dict(scale_factor=(6.1 / 14, 9.1 / 14))
    wanted = nn.functional.interpolate(image, **options, mode='bicubic', align_corners=False)
    found = resize_position_embedding(embedding, (14, 14), (6, 9), by=by)
    torch.testing.assert_close(found[:, 1:], wanted.flatten(2).transpose(1, 2))


def test_patches_as_a_product_are_the_convolution() -> None:
    torch.manual_seed(0)
    projection = nn.Conv2d(3, 7, (4, 5), (4, 5)).double()
    images = torch.randn(2, 3, 13, 22, dtype=torch.float64)  # remainders are cut, as there
    torch.testing.assert_close(
        embed_patches(images, projection), projection(images).flatten(2).transpose(1, 2)
    )


@pytest.mark.parametrize('option', ['init', 'pos_embed_resize'])
def test_unknown_options_are_named(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} must .* got 'x'"):
        PretrainVisionTransformer(**TINY, **{option: 'x'})


def test_fidelity_sets_the_public_codes_choices() -> None:
    backbone = dict(TINY, type='S3PTVisionTransformer', init='mmpretrain', pos_embed_resize='size')
    head = dict(num_prototypes=8, hidden_channels=8, bottleneck_channels=4)
    options = dict(backbone=backbone, head=head, queue_images=2)
    clustering = dict(num_clusters=4, cost_scope='image', rounds=1, adaptive_prior=False)
    build = dict(type='CrIBo', clustering=clustering, **options)
    model = MODELS.build(dict(build, fidelity='reference'))
    assert model.student['backbone'].pos_embed_resize == 'scale_factor'
    assert model.student['backbone'].init == 'reference'
    assert model.cross_image_divisor == 'first_view'
    found = model.clustering
    assert (found.rounds, found.cost_scope, found.adaptive_prior) == (5, 'batch', True)
    assert found.num_clusters == 4
    assert MODELS.build(build).clustering.rounds == 1
    with pytest.raises(ValueError, match="got 'exact'"):
        MODELS.build(dict(build, fidelity='exact'))
    with pytest.raises(ValueError, match="got 'both'"):
        MODELS.build(dict(build, cross_image_divisor='both'))
