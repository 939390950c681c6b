"""The detector as configs build it: frozen backbone, every number of Table 4, a frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from tools.dev.benchmark_detection import make_samples

from .petr_cases import REPOSITORY, petr_config, scoped

CONFIGS = ('vits16', 'vitb16', 'vovnet99')


def small(name: str = 'vits16', **backbone: object) -> nn.Module:
    """The shipped ViT config with a tiny ViT and head, on 32 x 48 images."""
    model = petr_config(name).model
    model.img_backbone.arch = dict(
        embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32
    )
    model.img_backbone.update(img_size=(32, 48), **backbone)
    model.img_backbone.init_cfg.checkpoint = 'random'
    model.pts_bbox_head.update(in_channels=16, embed_dims=32, num_query=12, depth_num=8)
    model.pts_bbox_head.decoder.update(num_layers=2, num_heads=4, feedforward_channels=64)
    detector = MODELS.build(scoped(model))
    detector.init_weights()
    return detector


def step(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    inputs = {'imgs': torch.randn(1, 3, 3, 32, 48)}
    samples = make_samples(1, views=3, image_size=(32, 48), objects=3)
    sum(model.loss(inputs, samples).values()).backward()
    optimizer.step()


@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
def test_frozen_backbone_does_not_change(dtype: str | None) -> None:
    model = small(inference_dtype=dtype).train()
    backbone = model.img_backbone
    before = {k: v.numpy().tobytes() for k, v in backbone.state_dict().items()}
    head_before = model.pts_bbox_head.input_proj.weight.detach().clone()
    step(model)
    assert not backbone.training
    assert not any(module.training for module in backbone.modules())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert {k: v.numpy().tobytes() for k, v in backbone.state_dict().items()} == before
    assert not torch.equal(model.pts_bbox_head.input_proj.weight, head_before)
    images = {'imgs': torch.randn(1, 3, 3, 32, 48)}
    assert torch.equal(model.extract_feat(images), model.extract_feat(images))
    assert model.extract_feat(images).dtype == torch.float32


def test_bfloat16_features_are_near() -> None:
    model = small()
    images = {'imgs': torch.randn(1, 3, 3, 32, 48)}
    exact = model.extract_feat(images)
    model.img_backbone.inference_dtype = 'bfloat16'
    near = model.extract_feat(images)
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, atol=0.1, rtol=0.05)


TIMM = dict(name='vit_small_patch14_reg4_dinov2', embed_dim=16, depth=2, num_heads=2)


@pytest.mark.parametrize('size', [(28, 56), (42, 42)])
def test_a_timm_backbone_takes_a_step_and_keeps_its_bytes(size: tuple[int, int]) -> None:
    """DINOv2 with registers; 30 x 50 is no multiple of 14: the preprocessor pads, or an error."""
    model = petr_config('vitb14_dinov2').model
    model.img_backbone.update(TIMM, img_size=size)
    model.img_backbone.init_cfg.checkpoint = 'random'
    model.pts_bbox_head.update(in_channels=16, embed_dims=32, num_query=12, depth_num=8)
    model.pts_bbox_head.decoder.update(num_layers=2, num_heads=4, feedforward_channels=64)
    detector = MODELS.build(scoped(model))
    detector.init_weights()
    detector.train()
    before = {k: v.numpy().tobytes() for k, v in detector.img_backbone.state_dict().items()}
    images = [torch.randint(0, 255, (3, 3, 30, 50), dtype=torch.uint8)]
    padded = detector.data_preprocessor(dict(inputs=dict(img=images), data_samples=None))
    inputs = padded['inputs']
    assert inputs['imgs'].shape[-2:] == (42, 56)
    samples = make_samples(1, views=3, image_size=(42, 56), objects=3)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-2)
    sum(detector.loss(inputs, samples).values()).backward()
    optimizer.step()
    after = {k: v.numpy().tobytes() for k, v in detector.img_backbone.state_dict().items()}
    assert before == after and not any(m.training for m in detector.img_backbone.modules())
    assert detector.extract_feat(inputs).shape == (1, 3, 16, 3, 4)
    with pytest.raises(ValueError, match=r'\(30, 50\) pixels .*pad_size_divisor'):
        detector.extract_feat(dict(imgs=torch.zeros(1, 3, 3, 30, 50)))


def test_images_of_one_camera_are_refused() -> None:
    with pytest.raises(ValueError, match='imgs'):
        small().extract_feat({'imgs': torch.zeros(1, 3, 32, 48)})


@pytest.mark.parametrize('name', CONFIGS)
def test_table_4(name: str) -> None:
    config = petr_config(name)
    width = {'vits16': 384, 'vitb16': 768, 'vovnet99': 256}[name]
    head = config.model.pts_bbox_head
    assert (head.embed_dims, head.in_channels, head.num_query) == (width, width, 900)
    decoder = head.decoder
    assert (decoder.num_layers, decoder.num_heads, decoder.feedforward_channels) == (6, 8, 2048)
    assert decoder.dropout == 0.1
    assert config.train_dataloader.batch_size == 2
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 3e-4, 0.01)
    assert config.optim_wrapper.clip_grad == {'max_norm': 35, 'norm_type': 2}
    assert config.optim_wrapper.type == 'OptimWrapper'  # no fp16
    assert config.train_cfg.max_epochs == 20
    for pipeline in (
        config.train_dataloader.dataset.pipeline,
        config.test_dataloader.dataset.pipeline,
    ):
        resize = next(t for t in pipeline if t.type == 'MultiViewResizeCropFlip')
        assert tuple(resize['size']) == (320, 800)
    if name != 'vovnet99':
        assert config.model.img_backbone.drop_path_rate == 0.1


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_build(name: str) -> None:
    config = petr_config(name)
    with torch.device('meta'):
        backbone = MODELS.build(scoped(config.model.img_backbone))
    preprocessor = MODELS.build(scoped(config.model.data_preprocessor))
    bgr = name == 'vovnet99'
    mean = [103.53, 116.28, 123.675] if bgr else [123.675, 116.28, 103.53]
    assert preprocessor.mean.flatten().tolist() == pytest.approx(mean)
    assert preprocessor._channel_conversion is not bgr
    if bgr:
        assert config.model.grid_mask == {'prob': 0.7, 'ratio': 0.5}
        assert config.optim_wrapper.paramwise_cfg.custom_keys.img_backbone.lr_mult == 0.1
        assert all(p.requires_grad for p in backbone.parameters())
    else:
        assert backbone.embed_dims == config.model.pts_bbox_head.in_channels
        assert 'img_neck' not in config.model
        assert not any(p.requires_grad for p in backbone.parameters())


def test_toydrive_config_builds() -> None:
    config = Config.fromfile(REPOSITORY / 'configs' / 'toydrive' / 'petr_vitt16.py')
    model = MODELS.build(scoped(config.model))
    assert model.img_backbone.embed_dims == config.model.pts_bbox_head.in_channels == 128
    assert config.train_dataloader.dataset.indices == config.val_dataloader.dataset.indices


def test_a_step_on_a_frame(frame_infos: Path, frame_root: Path) -> None:
    """The shipped pipeline and a small model: one step, one prediction."""
    init_default_scope('mmdet3d')
    config = petr_config('vits16')
    dataset = config.train_dataloader.dataset
    dataset.update(data_root=str(frame_root), ann_file=str(frame_infos))
    model = config.model
    model.img_backbone.arch = dict(
        embed_dims=48, num_layers=1, num_heads=3, feedforward_channels=64
    )
    model.img_backbone.init_cfg.checkpoint = 'random'
    model.pts_bbox_head.update(in_channels=48, embed_dims=48, num_query=60, depth_num=16)
    model.pts_bbox_head.decoder.update(num_layers=2, num_heads=4, feedforward_channels=64)
    detector = MODELS.build(scoped(model))
    detector.init_weights()
    before = detector.pts_bbox_head.input_proj.weight.detach().clone()
    data = pseudo_collate([DATASETS.build(scoped(dataset))[0]])
    batch = detector.data_preprocessor(data, True)
    assert batch['inputs']['imgs'].shape == (1, 6, 3, 320, 800)
    assert len(batch['data_samples'][0].gt_instances_3d) > 20
    losses = detector.train().loss(batch['inputs'], batch['data_samples'])
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    torch.optim.AdamW(detector.parameters(), lr=1e-3).step()
    assert not torch.equal(detector.pts_bbox_head.input_proj.weight, before)
    result = detector.eval().predict(batch['inputs'], batch['data_samples'])[0].pred_instances_3d
    assert len(result) == 300
    assert torch.isfinite(result.bboxes_3d.tensor).all()
