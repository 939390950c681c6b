"""Small PETR heads and samples, and the fill of weights by name that the golden numbers use."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config, ConfigDict
from torch import nn

import s3pt_mm.detection  # noqa: F401

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / 'tests' / 'golden'


def petr_config(name: str) -> Config:
    """A config of configs/petr."""
    return Config.fromfile(REPOSITORY / 'configs' / 'petr' / f'{name}_nuscenes.py')


def scoped(model: dict[str, Any]) -> ConfigDict:
    """The model config with mmdet3d's scope, as a Runner gives it."""
    return ConfigDict(model, _scope_='mmdet3d')


def tiny_head(**changes: Any) -> nn.Module:
    """The shipped head, small: width 32, 20 queries, 2 layers, 8 depths, no dropout."""
    config = petr_config('vits16').model.pts_bbox_head
    config.update(in_channels=16, embed_dims=32, num_query=20, depth_num=8)
    config.decoder.update(num_layers=2, num_heads=4, feedforward_channels=64, dropout=0.0)
    config.update(changes)
    head = MODELS.build(scoped(config))
    nn.init.uniform_(head.reference_points.weight)
    return head


def fill_by_name(model: nn.Module) -> None:
    """Every weight from the checksum of its name; see the README of the golden numbers."""
    filled = {}
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or name.endswith('code_weights'):
            filled[name] = value
            continue
        draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape))
        draw = torch.from_numpy(draw.astype(np.float32))
        if name.endswith('running_var'):
            draw = draw.abs() + 0.5
        elif value.dim() == 1 and name.endswith('weight'):
            draw = 1 + 0.1 * draw
        elif value.dim() == 1:
            draw = 0.1 * draw
        elif 'reference_points' in name:
            draw = draw.sigmoid()
        else:
            draw = draw / np.sqrt(np.prod(value.shape[1:]))
        filled[name] = draw
    model.load_state_dict(filled, strict=True)
