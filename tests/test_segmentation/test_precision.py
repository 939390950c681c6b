"""A probing step under bf16 autocast stays near float32, with both heads."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from tools.dev.benchmark_segmentation import CONFIGS, Config, init_default_scope


@pytest.mark.parametrize('head', ['linear', 'mask'])
def test_bf16_stays_near_float32(head: str) -> None:
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIGS / f'{head}_vits16_nuimages.py', import_custom_modules=False)
    arch = dict(embed_dims=48, num_layers=2, num_heads=2, feedforward_channels=96)
    cfg.model.backbone.update(arch=arch, img_size=64)
    cfg.model.backbone.init_cfg.checkpoint = 'random'
    cfg.model.decode_head.update(in_channels=48, channels=48)
    if head == 'mask':
        cfg.model.decode_head.update(embed_dims=48, num_heads=2, dropout_ratio=0.0)
        cfg.model.decode_head.update(drop_path_rate=0.0, attn_drop_rate=0.0, drop_rate=0.0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    images = torch.randn(2, 3, 64, 64)
    label = torch.randint(0, 13, (1, 64, 64))
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=(64, 64)))
        for _ in images
    ]
    losses, gradients = [], []
    for half in (False, True):
        model.zero_grad()
        torch.manual_seed(1)
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            loss, _ = model.parse_losses(model.loss(images, samples))
        loss.backward()
        losses.append(float(loss.detach()))
        found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat(found))
    error = float((gradients[1] - gradients[0]).norm() / gradients[0].norm())
    assert abs(losses[1] / losses[0] - 1) < 0.01
    assert 0 < error < 0.05
