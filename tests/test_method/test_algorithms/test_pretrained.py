"""A student starts from trained weights as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmpretrain.models.backbones import VisionTransformer

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.method.algorithms import DINO

VIT = dict(
    arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
    img_size=32,
    patch_size=16,
    out_type='raw',
)
HEAD = dict(num_prototypes=8, hidden_channels=8, bottleneck_channels=4, with_objects=False)


def started(path: Path, prefix: str | None = None) -> DINO:
    init = dict(type='Pretrained', checkpoint=str(path), prefix=prefix)
    backbone = dict(type='VisionTransformer', init_cfg=init, **VIT)
    model = DINO(backbone=backbone, head=dict(HEAD))
    model.init_weights()
    return model


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return VisionTransformer(**VIT).state_dict()


@pytest.mark.parametrize('prefix', [None, 'teacher.backbone', 'teacher.backbone.'])
def test_every_weight_arrives_and_the_teacher_is_the_same_copy(weights, prefix, tmp_path) -> None:
    front = 'teacher.backbone.' if prefix else ''
    torch.save({'state_dict': {front + k: v for k, v in weights.items()}}, tmp_path / 'w.pth')
    model = started(tmp_path / 'w.pth', prefix)
    for name, value in weights.items():
        for network in (model.student, model.teacher):
            assert torch.equal(network['backbone'].state_dict()[name], value), name


def test_names_of_others_are_refused_with_the_converter(weights, tmp_path) -> None:
    """DINO's and timm's own files: `blocks.*`, of which a few names fit."""
    state = {name.replace('layers.', 'blocks.'): value for name, value in weights.items()}
    torch.save(state, tmp_path / 'dino.pth')
    with pytest.raises(ConfigError, match=r'dino.pth.*is absent in the file.*s3pt-convert'):
        started(tmp_path / 'dino.pth')


def test_more_weights_and_other_shapes_are_refused(weights, tmp_path) -> None:
    torch.save({**weights, 'head.weight': torch.zeros(1)}, tmp_path / 'more.pth')
    with pytest.raises(ConfigError, match='head.weight is unknown to the model'):
        started(tmp_path / 'more.pth')
    weights['cls_token'] = torch.zeros(1, 1, 8)
    torch.save(weights, tmp_path / 'wide.pth')
    with pytest.raises(ConfigError, match=r'cls_token is \(1, 1, 8\) in the file'):
        started(tmp_path / 'wide.pth')
