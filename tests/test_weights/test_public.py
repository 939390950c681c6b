"""``--init`` and :class:`TimmViT`: public weights compute here what they compute at home."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from s3pt_mm.common.reading import UnsafeCheckpointError, read_checkpoint
from s3pt_mm.weights.layouts import LayoutError
from s3pt_mm.weights.public import fill, initial_weights, start_from
from s3pt_mm.weights.timm_vit import FrozenTimmViT, TimmViT
from tests.test_security.attacks import write_checkpoint

TINY = dict(embed_dim=48, depth=2, num_heads=3)
DINOV2 = dict(name='vit_small_patch14_dinov2', img_size=56, **TINY)
REGISTERS = dict(name='vit_small_patch14_reg4_dinov2', img_size=56, **TINY)
SWIGLU = dict(name='vit_giant_patch14_dinov2', img_size=56, mlp_ratio=2.0, **TINY)
DINOV3 = dict(name='vit_small_patch16_dinov3', img_size=64, **TINY)


def at_home(name: str, **settings: object) -> nn.Module:
    """timm's own model, every weight drawn."""
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True, **settings).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def as_published(model: nn.Module) -> dict[str, Tensor]:
    """The names of DINOv2's and DINOv3's own files."""
    state = {name: t.clone() for name, t in model.state_dict().items()}
    if 'reg_token' in state and 'pos_embed' in state:  # DINOv2: one position for the class token
        place = torch.randn_like(state['cls_token'])
        state['cls_token'] -= place
        state['pos_embed'] = torch.cat([place, state['pos_embed']], dim=1)
        state['register_tokens'] = state.pop('reg_token')
        state['mask_token'] = torch.zeros(1, 48)
    elif 'reg_token' in state:
        state['storage_tokens'] = state.pop('reg_token')
        state['mask_token'] = torch.zeros(1, 48)
    gated = 'giant' in str(type(model)) or any('mlp.fc1.weight' in n and t.shape[0] == 2 * state[
        n.replace('fc1', 'fc2')].shape[1] for n, t in state.items())  # fmt: skip
    renamed = {}
    for name, tensor in state.items():
        name = name.replace('gamma_1', 'ls1.gamma').replace('gamma_2', 'ls2.gamma')
        if gated:
            name = name.replace('mlp.fc1', 'mlp.w12').replace('mlp.fc2', 'mlp.w3')
            renamed['mask_token'] = torch.zeros(1, 48)
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize(
    'settings', [DINOV2, REGISTERS, SWIGLU, DINOV3], ids=['dinov2', 'registers', 'swiglu', 'dinov3']
)
@pytest.mark.parametrize('names', ['timm', 'published'])
def test_public_weights_compute_the_same(settings: dict, names: str, tmp_path: Path) -> None:
    """At the home size and at another; every token to 1e-5."""
    model = at_home(**settings)
    state = model.state_dict() if names == 'timm' else as_published(model)
    torch.save({'model': state} if names == 'timm' else state, tmp_path / 'public.pth')
    path = initial_weights(
        dict(type='TimmViT', **settings), tmp_path / 'public.pth', tmp_path / 'init.pth'
    )
    ours = TimmViT(**settings, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    ours.init_weights()
    ours.eval()
    patch = ours.patch_size[0]
    for height, width in ((4, 4), (3, 5)):
        images = torch.randn(2, 3, height * patch, width * patch)
        with torch.no_grad():
            expected, got = model.forward_features(images), ours(images)[0]
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        assert got.shape[1] == ours.num_extra_tokens + height * width


def test_featmap_frozen_of_another_size(tmp_path: Path) -> None:
    """For Segmenter and PETR: patches alone, a rectangle, positions resized while loading."""
    teacher = TimmViT(**REGISTERS)
    state = {f'teacher.backbone.{name}': t for name, t in teacher.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'epoch_1.pth')
    init = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth'), prefix='teacher.backbone.'
    )
    settings = {**REGISTERS, 'img_size': (42, 70), 'out_type': 'featmap', 'init_cfg': init}
    probe = FrozenTimmViT(**settings)
    probe.init_weights()
    (features,) = probe.train()(torch.randn(2, 3, 42, 70))
    assert features.shape == (2, 48, 3, 5) and not features.requires_grad
    assert not any(parameter.requires_grad for parameter in probe.parameters())
    depths = {probe.get_layer_depth(name)[0] for name, _ in probe.named_parameters()}
    assert depths == {0, 1, 2, 3}


def test_sizes_that_are_no_multiple_of_the_patch() -> None:
    """Feature maps count the last patch that zeros fill; tokens of pre-training are refused."""
    images = torch.randn(1, 3, 40, 60)
    probe = TimmViT(**REGISTERS, out_type='featmap').eval()
    (features,) = probe(images)
    (whole,) = probe(nn.functional.pad(images, (0, 10, 0, 2)))
    assert features.shape == (1, 48, 3, 5) and torch.equal(features, whole)
    with pytest.raises(ValueError, match=r'\(40, 60\) pixels are no multiple'):
        TimmViT(**REGISTERS)(images)


@pytest.mark.parametrize('change', [dict(name='vit_of_nobody'), dict(embed_dims=48)])
def test_what_timm_does_not_have_is_named(change: dict) -> None:
    with pytest.raises(ValueError, match=r'TimmViT, vit_.*(vit_of_nobody|embed_dims)'):
        TimmViT(**{**DINOV2, **change})


def test_misfits_and_code_are_refused(tmp_path: Path) -> None:
    """Another model's weights, and a file with code; nothing is written."""
    torch.save(at_home(**DINOV2).state_dict(), tmp_path / 'x.pth')
    with pytest.raises(LayoutError, match=r'x\.pth does not fit .*reg_token is absent'):
        initial_weights(dict(type='TimmViT', **REGISTERS), tmp_path / 'x.pth', tmp_path / 'i.pth')
    write_checkpoint('shell command', tmp_path / 'evil.pth', tmp_path / 'victim')
    with pytest.raises(UnsafeCheckpointError):
        initial_weights(dict(type='TimmViT', **DINOV2), tmp_path / 'evil.pth', tmp_path / 'i.pth')
    assert not (tmp_path / 'victim').exists() and not (tmp_path / 'i.pth').exists()


def test_pre_training_starts_both_networks_from_public_weights(tmp_path: Path) -> None:
    """DINO on DINOv2 with registers: teacher and student are the same copy, and a step trains."""
    import s3pt_mm.method.algorithms  # noqa: F401

    model = at_home(**REGISTERS)
    torch.save(as_published(model), tmp_path / 'public.pth')
    backbone = dict(type='TimmViT', **REGISTERS)
    path = initial_weights(backbone, tmp_path / 'public.pth', tmp_path / 'init.pth')
    init = dict(type='Pretrained', checkpoint=str(path))
    head = dict(type='ProjectionHead', num_layers=2, hidden_channels=16, bottleneck_channels=8,
                num_prototypes=32, with_objects=False)  # fmt: skip
    method = MODELS.build(dict(type='S3PTDINO', backbone={**backbone, 'init_cfg': init}, head=head))
    method.init_weights()
    for network in (method.student, method.teacher):
        for name, tensor in model.state_dict().items():
            got = network.state_dict()[f'backbone.model.{name}']
            torch.testing.assert_close(got, tensor, msg=name)
    classes, patches = method.encode(method.student, torch.randn(2, 3, 42, 42))
    assert classes.shape == (2, 48) and patches.shape == (2, 9, 48)
    before = copy.deepcopy(method.student['backbone'].model.reg_token.data)
    (classes.sum() + patches.square().sum()).backward()
    assert method.student['backbone'].model.reg_token.grad is not None
    assert torch.equal(before, method.student['backbone'].model.reg_token.data)


HUGGING_FACE = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3)


def hugging_face(kind: str) -> tuple[nn.Module, dict]:
    """A small model of transformers, and the same of timm by name."""
    import transformers as hf

    if kind == 'dinov3':
        config = hf.DINOv3ViTConfig(
            **HUGGING_FACE, patch_size=16, image_size=64, intermediate_size=192,
            num_register_tokens=4,
        )  # fmt: skip
        return hf.DINOv3ViTModel(config), {**DINOV3, 'name': 'vit_small_patch16_dinov3_qkvb'}
    settings = dict(**HUGGING_FACE, patch_size=14, image_size=56)
    if kind == 'registers':
        config = hf.Dinov2WithRegistersConfig(**settings, num_register_tokens=4)
        return hf.Dinov2WithRegistersModel(config), REGISTERS
    config = hf.Dinov2Config(**settings, use_swiglu_ffn=kind == 'swiglu')
    # Both halves of its gate have 128 numbers: (2 / 3 of 4 widths, up to a multiple of 8).
    return hf.Dinov2Model(config), {**SWIGLU, 'mlp_ratio': 5.34} if kind == 'swiglu' else DINOV2


@pytest.mark.parametrize('kind', ['dinov2', 'registers', 'swiglu', 'dinov3'])
def test_hugging_face_folders_compute_the_same(kind: str, tmp_path: Path) -> None:
    """What ``save_pretrained`` wrote, through ``--init``, to 1e-5 in every token."""
    model, settings = hugging_face(kind)
    model.eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / 'hf')
    ours = TimmViT(**settings)
    fill(ours, read_checkpoint(tmp_path / 'hf' / 'model.safetensors'), 'hf')
    side = settings['img_size']
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected, got = model(images).last_hidden_state, ours.eval()(images)[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_config_starts_from_dinos_own_file(tmp_path: Path) -> None:
    """``--init`` with mmpretrain's ViT: DINO's entries and names, converted on the way."""
    from mmengine.config import Config

    home = timm.create_model('vit_small_patch16_224', img_size=64, num_classes=0, **TINY).eval()
    entries = {f'module.backbone.{name}': t for name, t in home.state_dict().items()}
    torch.save({'teacher': entries, 'student': entries, 'epoch': 3}, tmp_path / 'dino.pth')
    arch = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=64, patch_size=16, out_type='raw')
    cfg = Config(dict(model=dict(backbone=backbone), work_dir=str(tmp_path / 'work')))
    start_from(cfg, str(tmp_path / 'dino.pth'))
    ours = MODELS.build(dict(cfg.model.backbone))
    ours.init_weights()
    ours.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = home.forward_features(images)
        torch.testing.assert_close(ours(images)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('whose', ['ibot', 'mae'])
def test_what_is_learned_beside_the_backbone_stays_behind(whose: str) -> None:
    """iBOT's file with its mask token, MAE's whole one with the decoder."""
    home = timm.create_model('vit_small_patch16_224', img_size=64, num_classes=0, **TINY).eval()
    beside = dict(
        ibot={'masked_embed': torch.zeros(1, 48)},
        mae={'mask_token': torch.zeros(1, 1, 48), 'decoder_pos_embed': torch.zeros(1, 17, 32),
             'decoder_blocks.0.norm1.weight': torch.zeros(32)},
    )[whose]  # fmt: skip
    arch = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)
    backbone = dict(arch=arch, img_size=64, patch_size=16, out_type='raw')
    ours = MODELS.build(dict(type='VisionTransformer', **backbone))
    fill(ours, {'model': home.state_dict() | beside}, whose)
    ours.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = home.forward_features(images)
        torch.testing.assert_close(ours(images)[0], expected, rtol=1e-5, atol=1e-5)


def test_filters_of_another_patch_are_refused() -> None:
    state = at_home(**REGISTERS).state_dict()
    with pytest.raises(LayoutError, match=r'x\.pth has patches of \(14, 14\).*of \(7, 7\): set'):
        fill(TimmViT(**{**REGISTERS, 'patch_size': 7}), state, 'x.pth')
