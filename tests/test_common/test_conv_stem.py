"""A stem of convolutions stands where a ViT's filters stood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s3pt_mm.common.conv_stem import ConvStem
from s3pt_mm.common.models import CheckpointMismatchError
from s3pt_mm.method.backbone import PretrainVisionTransformer
from s3pt_mm.weights.frozen import FrozenVisionTransformer

TINY = dict(
    arch=dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16),
    img_size=32,
    patch_size=8,
    out_type='raw',
)


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (24, 40), (39, 33)])
def test_a_stem_of_convolutions_gives_the_tokens_of_filters(height: int, width: int) -> None:
    """As many, in the same order; what fills no patch is cut off; every weight learns."""
    vit = PretrainVisionTransformer(**TINY, stem='convolutions')
    vit.init_weights()
    images = torch.rand(2, 3, height, width)
    tokens = vit(images)[-1]
    assert tokens.shape == (2, 1 + (height // 8) * (width // 8), 8)
    tokens[:, 1:].square().sum().backward()
    stem = vit.patch_embed.projection
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stem.parameters())
    # One token sees its surroundings, and its own patch most: in the grid's order.
    seen = torch.zeros(1, 3, 32, 32, requires_grad=True)
    stem(seen)[0, :, 1, 2].sum().backward()
    assert seen.grad is not None
    per_patch = seen.grad.abs().sum(1).unfold(1, 8, 8).unfold(2, 8, 8).sum((3, 4))
    assert int(per_patch.argmax()) == 1 * 4 + 2


def test_a_stem_that_cannot_halve_is_refused() -> None:
    with pytest.raises(ValueError, match=r'patch_size is 14 \(a power of two\)'):
        ConvStem(3, 384, 14)
    with pytest.raises(ValueError, match='embed_dims 12'):
        ConvStem(3, 12, 16)
    with pytest.raises(ValueError, match="stem must be 'patches' or 'convolutions', got 'conv'"):
        PretrainVisionTransformer(**TINY, stem='conv')


def test_a_frozen_vit_takes_weights_of_a_stem(tmp_path: Path) -> None:
    """The same tokens, and nothing learns, the stem included."""
    trained = PretrainVisionTransformer(**TINY, stem='convolutions', pos_embed_resize='size')
    trained.init_weights()
    weights = {f'teacher.backbone.{name}': t for name, t in trained.state_dict().items()}
    torch.save({'state_dict': weights}, tmp_path / 'epoch_1.pth')
    init = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth'), prefix='teacher.backbone.'
    )
    frozen = FrozenVisionTransformer(**TINY, stem='convolutions', init_cfg=init)
    frozen.init_weights()
    assert not any(p.requires_grad for p in frozen.parameters())
    images = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        torch.testing.assert_close(frozen(images)[0], trained(images)[0])
    with pytest.raises(CheckpointMismatchError, match=r'projection\.weight is absent'):
        FrozenVisionTransformer(**TINY, init_cfg=init).init_weights()
