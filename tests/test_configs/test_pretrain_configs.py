"""Every pre-training config builds, and every number of the supplement's Tables 1-3 is in it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS as ROOT_SCHEDULERS
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
from mmpretrain.registry import HOOKS, MODELS, PARAM_SCHEDULERS, TRANSFORMS
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
METHODS = ('dino', 'cribo', 's3pt')
MAIN = [f'{method}/vit{size}16_nuscenes' for method in METHODS for size in 'sb']
PATCHES = [f's3pt/vits{patch}_nuscenes_100e' for patch in (14, 16, 32)]
LADDER = [
    f'ablation/{rung}_vits16_nuscenes_100e'
    for rung in ('cribo', 'cribo_vmf', 'cribo_vmf_diversity', 's3pt')
]
TOY = [f'toydrive/{method}_vitt16' for method in METHODS] + ['toydrive/demo_s3pt_vitt16']
FOLDER = [f'{method}/vits16_image_folder' for method in METHODS]
LOGS = ['s3pt/vits16_logs', 's3pt/vitb14_dinov2_continue']
STEPS = 5  # iterations of an epoch


def load(name: str) -> Config:
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py', import_custom_modules=False)
    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope('mmpretrain')
    return cfg


def build_model(cfg: Config) -> nn.Module:
    """On the meta device: 65,536 prototypes need no memory to have a shape."""
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', MAIN + PATCHES + LADDER + TOY + FOLDER + LOGS)
def test_builds_and_has_the_documented_keys(name: str) -> None:
    cfg = load(name)
    model = build_model(cfg)
    for step in cfg.train_dataloader.dataset.pipeline:
        TRANSFORMS.build(step)
    for hook in cfg.default_hooks.values():
        built = HOOKS.build(hook)
        for attribute in getattr(built, 'linear', {}):
            assert hasattr(model, attribute)
    # Keys that the documentation overrides on the command line.
    loader = cfg.train_dataloader
    assert {'batch_size', 'num_workers', 'persistent_workers'} <= set(loader)
    assert {'data_root'} | ({'ann_file'} if name not in FOLDER else set()) <= set(loader.dataset)
    assert cfg.train_cfg.max_epochs and cfg.default_hooks.logger.interval
    text = (ROOT / 'configs' / f'{name}.py').read_text()
    assert text.startswith('# ')


def test_no_pretraining_config_is_forgotten() -> None:
    folders = ('dino', 'cribo', 's3pt', 'ablation')
    there = {
        f'{path.parent.name}/{path.stem}'
        for folder in folders
        for path in (ROOT / 'configs' / folder).glob('*.py')
    }
    assert there == set(MAIN + PATCHES + LADDER + FOLDER + LOGS)


def table(name: str) -> dict:
    """The supplement's numbers for one of the main configs."""
    method, arch = name.split('/')
    small = arch.startswith('vits')
    return dict(
        epochs=500 if small and not name.endswith('100e') else 100,
        lr=5e-4 if small else 7.5e-4,
        final_lr=1e-5 if small else 2e-6,
        freeze=1 if small else 3,
        clip=None if small else 0.3,
        scale=(0.25, 1.0) if small or method == 'dino' else (0.32, 1.0),
        unit_norm=not small and method != 's3pt',
        warmup_teacher=30 if small else 50,
        width=384 if small else 768,
        heads=6 if small else 12,
    )


@pytest.mark.parametrize('name', MAIN)
def test_model_attributes(name: str) -> None:
    wanted, model = table(name), build_model(load(name))
    method = name.split('/')[0]
    backbone, head = model.student['backbone'], model.student['head']
    assert (backbone.embed_dims, backbone.num_layers) == (wanted['width'], 12)
    assert backbone.layers[0].attn.num_heads == wanted['heads']
    assert backbone.layers[-1].attn.out_drop.drop_prob == pytest.approx(0.1)
    assert backbone.patch_embed.projection.kernel_size == (16, 16)
    linears = [layer for layer in head.mlp if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linears] == [2048, 2048, 256]
    for layer in head.prototype_layers():
        assert (layer.num_prototypes, layer.dimension) == (65536, 256)
        assert layer.kind == ('vmf' if method == 's3pt' else 'plain')
        assert layer.weight_g.requires_grad != wanted['unit_norm']
    assert len(head.prototype_layers()) == (1 if method == 'dino' else 2)
    assert model.image_center.space == ('probability' if method == 's3pt' else 'logit')
    assert model.image_center.momentum == 0.9
    assert (model.student_temperature, model.teacher_temperature) == (0.1, 0.04)
    if method == 'dino':
        return
    clustering = model.clustering
    if method == 'cribo':
        assert (clustering.num_clusters, clustering.sinkhorn_iterations) == (32, 5)
        assert (model.queue.num_images, model.depth_weight) == (25000, 0.0)
    else:
        assert (clustering.num_clusters, clustering.sinkhorn_iterations) == (128, 1)
        assert (model.queue.num_images, model.depth_weight) == (2500, 4.0)
    assert (clustering.sinkhorn_lambda, clustering.rounds) == (20.0, 5)
    assert (model.position_weight, model.cross_image_from_epoch) == (1.0, 1)


@pytest.mark.parametrize('name', MAIN)
def test_views(name: str) -> None:
    wanted, cfg = table(name), load(name)
    views = next(
        TRANSFORMS.build(step)
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type in ('TwoViews', 'MultiCropViews')
    )
    assert (views.size, views.scale, views.flip_prob) == (224, wanted['scale'], 0.5)
    first, second = views.photometric[:2]
    for view in (first, second):
        assert (view.jitter_prob, view.grey_prob) == (0.8, 0.2)
        strengths = (view.brightness, view.contrast, view.saturation, view.hue)
        assert strengths == (0.4, 0.4, 0.2, 0.1)
    assert (first.blur_prob, second.blur_prob) == (1.0, 0.1)
    assert (first.solarize_prob, second.solarize_prob) == (0.0, 0.2)
    if name.startswith('dino'):
        assert (views.num_local, views.local_size, views.local_scale) == (10, 96, (0.05, 0.25))
        assert views.photometric[2].blur_prob == 0.5
    else:
        assert views.num_local == 0


@pytest.mark.parametrize('name', MAIN)
def test_hooks_and_batch(name: str) -> None:
    wanted, cfg = table(name), load(name)
    hooks = {hook.type: HOOKS.build(hook) for hook in cfg.default_hooks.values()}
    temperature = hooks['MethodScheduleHook']
    last = wanted['warmup_teacher'] - 1
    for epoch, value in ((0, 0.04), (last, 0.07), (last + 1, 0.07), (499, 0.07)):
        assert temperature.value('teacher_temperature', epoch) == pytest.approx(value)
    middle = 0.04 + 0.03 * 10 / last
    assert temperature.value('teacher_temperature', 10) == pytest.approx(middle)
    assert hooks['LastLayerFreezeHook'].epochs == wanted['freeze']
    momentum = hooks['TeacherUpdateHook'].momentum
    assert momentum(0, 1000) == pytest.approx(0.996)
    assert momentum(500, 1000) == pytest.approx(0.998)
    assert momentum(1000, 1000) == pytest.approx(1.0)
    assert cfg.train_cfg.max_epochs == wanted['epochs']
    assert (cfg.auto_scale_lr.enable, cfg.auto_scale_lr.base_batch_size) == (True, 256)
    assert cfg.train_dataloader.batch_size * 8 == 256
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', 'float16')


class _Tiny(nn.Module):
    """One parameter of each kind that decay and clipping tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.weight_g = nn.Parameter(torch.ones(4, 1))
        self.teacher = nn.Linear(4, 4).requires_grad_(False)


def build_optimizer(cfg: Config) -> tuple[_Tiny, OptimWrapper]:
    model = _Tiny()
    options = cfg.optim_wrapper.copy()
    for key in ('dtype', 'loss_scale'):
        options.pop(key, None)
    options.type = 'OptimWrapper'
    return model, build_optim_wrapper(model, options)


@pytest.mark.parametrize('name', MAIN)
def test_parameter_groups_and_clipping(name: str) -> None:
    wanted, cfg = table(name), load(name)
    model, wrapper = build_optimizer(cfg)
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    decayed, free = wrapper.optimizer.param_groups
    assert decayed['weight_decay'] == 0.04 and free['weight_decay'] == 0.0
    ids = {id(parameter) for parameter in decayed['params']}
    assert ids == {id(p) for p in (model.cls_token, model.linear.weight, model.weight_g)}
    ids = {id(parameter) for parameter in free['params']}
    assert ids == {id(p) for p in (model.linear.bias, model.norm.weight, model.norm.bias)}
    if wanted['clip'] is None:
        assert not wrapper.clip_grad_kwargs
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 3.0)
    model.norm.bias.grad.fill_(0.01)
    wrapper._clip_grad()
    assert model.linear.weight.grad.norm() == pytest.approx(0.3, rel=1e-4)
    assert model.cls_token.grad.norm() == pytest.approx(0.3, rel=1e-4)
    assert model.norm.bias.grad.norm() == pytest.approx(0.02)  # small already: untouched


@pytest.mark.parametrize('name', [*MAIN, 's3pt/vits32_nuscenes_100e'])
def test_rate_and_decay_over_the_whole_run(name: str) -> None:
    wanted, cfg = table(name), load(name)
    _, wrapper = build_optimizer(cfg)
    schedulers = []
    for options in cfg.param_scheduler:
        options = options.copy()
        cls = PARAM_SCHEDULERS.get(options.pop('type')) or ROOT_SCHEDULERS.get(options.type)
        options.pop('convert_to_iter_based')
        schedulers.append(
            cls.build_iter_from_epoch(optimizer=wrapper.optimizer, epoch_length=STEPS, **options)
        )
    total, warm = wanted['epochs'] * STEPS, 10 * STEPS
    rates, decays = [], []
    for _ in range(total):
        rates.append(wrapper.optimizer.param_groups[0]['lr'])
        decays.append(wrapper.optimizer.param_groups[0]['weight_decay'])
        wrapper.optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    lr, final = wanted['lr'], wanted['final_lr']

    def cosine(start: float, end: float, step: int, steps: int) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2

    assert rates[0] == pytest.approx(0, abs=1e-11)
    assert rates[warm // 2] == pytest.approx(lr * (warm // 2) / (warm - 1), rel=1e-6)
    assert rates[warm - 1] == pytest.approx(lr, rel=1e-6)
    last = cosine(lr, final, total - 1 - warm, total - warm)
    assert rates[-1] == pytest.approx(last, rel=0.05) and rates[-1] < 1.5 * final
    assert decays[0] == pytest.approx(0.04)
    assert decays[total // 2] == pytest.approx(0.22, rel=1e-3)
    assert decays[-1] == pytest.approx(cosine(0.04, 0.4, total - 1, total), rel=1e-4)
    assert wrapper.optimizer.param_groups[1]['weight_decay'] == 0.0


def test_patch_size_study() -> None:
    for patch, clusters, tokens in ((14, 128, 256), (16, 128, 196), (32, 32, 49)):
        cfg = load(f's3pt/vits{patch}_nuscenes_100e')
        model = build_model(cfg)
        assert model.student['backbone'].patch_embed.projection.kernel_size == (patch, patch)
        assert math.prod(model.student['backbone'].patch_resolution) == tokens
        assert model.clustering.num_clusters == clusters
        assert cfg.train_dataloader.dataset.pipeline[4].patch_size == patch
        assert cfg.train_cfg.max_epochs == 100


def test_ladder_adds_one_part_at_a_time() -> None:
    rungs = [build_model(load(name)) for name in LADDER]
    parts = [
        (
            model.student['head'].object_prototypes.kind,
            model.object_center.space,
            model.clustering.num_clusters,
            model.clustering.sinkhorn_iterations,
            model.queue.num_images,
            model.depth_weight,
        )
        for model in rungs
    ]
    assert parts == [
        ('plain', 'logit', 32, 5, 25000, 0.0),
        ('vmf', 'probability', 32, 5, 25000, 0.0),
        ('vmf', 'probability', 128, 1, 2500, 0.0),
        ('vmf', 'probability', 128, 1, 2500, 4.0),
    ]
