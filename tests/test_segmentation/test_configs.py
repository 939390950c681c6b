"""Every shipped segmentation config builds, and its objects carry the protocol's numbers."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope, init_default_scope
from mmseg.registry import MODELS, PARAM_SCHEDULERS

import s3pt_mm.resume
import s3pt_mm.segmentation  # noqa: F401
from s3pt_mm.data.class_sets import CITYSCAPES_19, NUIMAGES_13

SEGMENTER = [
    f'{head}_{vit}_{data}'
    for head in ('linear', 'mask')
    for vit in ('vits16', 'vitb16')
    for data in ('nuimages', 'cityscapes')
] + ['mask_vits14_nuimages', 'mask_vits32_nuimages']
TOYDRIVE = [f'{h}_vitt16_{d}' for h in ('linear', 'mask') for d in ('nuimages', 'cityscapes')]
WIDTH = dict(vits=384, vitb=768, vitt=128)
HEADS = dict(vits=6, vitb=12, vitt=4)


@pytest.fixture(autouse=True)
def mmseg_scope():
    before = DefaultScope.get_current_instance()
    init_default_scope('mmseg')
    yield
    if before is not None:
        init_default_scope(before.scope_name)


def load(repository, name):
    folder = 'toydrive' if 'vitt' in name else 'segmenter'
    return Config.fromfile(repository / f'configs/{folder}/{name}.py')


@pytest.mark.parametrize('name', SEGMENTER + TOYDRIVE)
def test_model(repository, name):
    cfg = load(repository, name)
    head, vit, data = name.split('_')
    size, patch = vit[:4], int(vit[4:])
    model = MODELS.build(cfg.model)
    num_classes = len((NUIMAGES_13 if data == 'nuimages' else CITYSCAPES_19).classes)
    backbone, decoder = model.backbone, model.decode_head
    assert backbone.embed_dims == WIDTH[size] == decoder.in_channels
    assert backbone.patch_embed.projection.kernel_size == (patch, patch)
    assert backbone.layers[0].attn.num_heads == HEADS[size]
    assert backbone.num_layers == (6 if size == 'vitt' else 12) and backbone.final_norm
    assert backbone.out_indices == [backbone.num_layers - 1] and backbone.out_type == 'featmap'
    assert not any(p.requires_grad for p in backbone.parameters())
    assert decoder.num_classes == num_classes and decoder.ignore_index == 255
    if head == 'linear':
        trained = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
        assert sum(trained.values()) == (WIDTH[size] + 1) * num_classes
    else:
        assert len(decoder.layers) == 2
        assert decoder.layers[0].attn.attn.num_heads == HEADS[size]
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    assert mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert model.data_preprocessor.channel_conversion  # images are read as BGR


@pytest.mark.parametrize('name', SEGMENTER)
def test_protocol(repository, name):
    cfg = load(repository, name)
    cityscapes = 'cityscapes' in name
    crop = 768 if cityscapes else 518 if '14' in name else 512
    stride = 512 if cityscapes else 490 if '14' in name else 480
    assert cfg.train_cfg.max_iters == 160_000 and cfg.train_dataloader.batch_size == 8
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(crop, crop), stride=(stride, stride))
    assert cfg.model.data_preprocessor.size == (crop, crop)
    assert cfg.model.backbone.img_size == crop and crop % cfg.model.backbone.patch_size == 0
    pipeline = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert list(pipeline)[0] == 'SeedFromIndex'
    assert pipeline['RandomCrop'].crop_size == (crop, crop)
    assert pipeline['RandomCrop'].cat_max_ratio == 0.75
    assert pipeline['RandomResize'].ratio_range == (0.5, 2.0)
    scale = (2049, 1025) if cityscapes else (2072, 518) if '14' in name else (2048, 512)
    assert pipeline['RandomResize'].scale == scale
    assert 'reduce_zero_label' not in cfg.train_dataloader.dataset
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        steps = [step.type for step in loader.dataset.pipeline]
        assert steps.index('Resize') < steps.index('LoadSegmentationLabels')
        assert loader.dataset.pipeline[steps.index('Resize')].scale == scale


def test_optimiser_and_schedule_objects(repository):
    cfg = load(repository, 'linear_vits16_nuimages')
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW
    for group in wrapper.optimizer.param_groups:
        assert group['weight_decay'] == 0.01 and group['lr'] in (8e-4, 3e-4, 8e-5)
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler[0], default_args=dict(optimizer=wrapper.optimizer)
    )
    assert scheduler.total_iters == 159_999 and scheduler.final_fraction == 0.1
    assert scheduler.power == 0.9


@pytest.mark.parametrize('name', ['linear_vits16_nuimages', 'mask_vitt16_cityscapes'])
def test_no_checkpoint_is_an_error(repository, name):
    model = MODELS.build(load(repository, name).model)
    with pytest.raises(ValueError, match='--cfg-options model.backbone.init_cfg.checkpoint=PATH'):
        model.init_weights()


def test_targets_of_domain_generalisation_load(repository):
    files = sorted((repository / 'configs').glob('*/targets/[a-z]*.py'))
    assert len(files) >= 8
    for file in files:
        data = Config.fromfile(file).test_dataloader.dataset
        assert (
            data.test_mode
            and data.type.endswith('Dataset')
            and 'LoadSegmentationLabels' in str(data.pipeline)
        )
