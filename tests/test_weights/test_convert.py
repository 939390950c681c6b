"""Converted networks compute what the originals compute; nothing is dropped in silence."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from s3pt_mm.common.reading import read_checkpoint
from s3pt_mm.weights.convert import convert_file, to_backbone
from s3pt_mm.weights.layouts import LayoutError
from tests.tool_runs import load_tool

WIDTH, DEPTH, HEADS, HIDDEN, PATCH, SIZE = 48, 3, 4, 80, 8, 32


def _noise(model: nn.Module) -> nn.Module:
    """Random values everywhere: zeros and ones of an initialisation hide swapped weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    model.eval()  # mmpretrain's returns None
    return model


def _ours() -> nn.Module:
    from mmpretrain.models import VisionTransformer

    arch = dict(embed_dims=WIDTH, num_layers=DEPTH, num_heads=HEADS, feedforward_channels=HIDDEN)
    return _noise(VisionTransformer(arch=arch, img_size=SIZE, patch_size=PATCH, out_type='raw'))


def _timm() -> nn.Module:
    vision_transformer = pytest.importorskip('timm.models.vision_transformer')
    return _noise(
        vision_transformer.VisionTransformer(
            img_size=SIZE,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            mlp_ratio=HIDDEN / WIDTH,
            num_classes=0,
        )
    )


def _hugging_face(**options: object) -> nn.Module:
    transformers = pytest.importorskip('transformers')
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        image_size=SIZE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
    )
    return _noise(transformers.ViTModel(config, **options))


def _torchvision() -> nn.Module:
    from torchvision.models import VisionTransformer

    return _noise(
        VisionTransformer(
            image_size=SIZE,
            patch_size=PATCH,
            num_layers=DEPTH,
            num_heads=HEADS,
            hidden_dim=WIDTH,
            mlp_dim=HIDDEN,
            num_classes=5,
        )
    )


def _tokens(model: nn.Module, images: Tensor) -> Tensor:
    """Class and patch tokens after the last norm, (2, 1 + N, d), of any of the four."""
    with torch.no_grad():
        kind = type(model).__module__.split('.')[0]
        if kind == 'timm':
            return model.forward_features(images)
        if kind == 'transformers':
            return model(images).last_hidden_state
        if kind == 'torchvision':
            tokens = model._process_input(images)
            token = model.class_token.expand(len(images), -1, -1)
            return model.encoder(torch.cat([token, tokens], 1))
        return model(images)[0]


@pytest.fixture
def images() -> Tensor:
    """Two images of noise."""
    return torch.randn(2, 3, SIZE, SIZE)


def _load_ours(path: Path) -> nn.Module:
    model = _ours()
    load_checkpoint(model, str(path), strict=True, map_location='cpu', logger='silent')
    model.eval()
    return model


@pytest.mark.parametrize('build', [_timm, _hugging_face, _torchvision], ids=lambda f: f.__name__)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_import_computes_the_same(build, suffix, images, tmp_path) -> None:
    """timm, Hugging Face and torchvision -> ours, 1e-5 in every token."""
    model = build()
    source, target = tmp_path / f'in{suffix}', tmp_path / 'out.pth'
    if suffix == '.pth':
        torch.save(model.state_dict(), source)
    else:
        from safetensors.torch import save_file

        save_file(model.state_dict(), source)
    size = convert_file(source, target)
    assert size == dict(
        embed_dims=WIDTH,
        num_layers=DEPTH,
        feedforward_channels=HIDDEN,
        patch_size=PATCH,
        img_size=SIZE,
    )
    expected = _tokens(model, images)
    torch.testing.assert_close(_tokens(_load_ours(target), images), expected, rtol=1e-5, atol=1e-5)
    assert (_tokens(_ours(), images) - expected).abs().max() > 0.1  # another network differs


def _our_checkpoint(model: nn.Module, path: Path) -> None:
    other = _ours()
    state = {f'teacher.backbone.{k}': v for k, v in model.state_dict().items()}
    state |= {f'student.backbone.{k}': v for k, v in other.state_dict().items()}
    state['teacher.head.mlp.0.weight'] = torch.zeros(3, WIDTH)
    torch.save(dict(state_dict=state, meta=dict(epoch=1)), path)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('layout', 'build'),
    [('timm', _timm), ('torchvision', _torchvision)],
    ids=['timm', 'torchvision'],
)
def test_export_computes_the_same(layout, build, suffix, images, tmp_path) -> None:
    """A pre-training checkpoint of ours -> timm and torchvision."""
    ours, source, target = _ours(), tmp_path / 'epoch_1.pth', tmp_path / f'out{suffix}'
    _our_checkpoint(ours, source)
    convert_file(source, target, layout_out=layout)
    state = read_checkpoint(target)
    state = state.get('state_dict', state)
    model = build()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(name.startswith('heads.') for name in missing)
    torch.testing.assert_close(_tokens(model, images), _tokens(ours, images), rtol=1e-5, atol=1e-5)


def test_export_to_hugging_face_folder(images, tmp_path) -> None:
    """`ViTModel.from_pretrained` takes the folder as it is."""
    transformers = pytest.importorskip('transformers')
    ours, source = _ours(), tmp_path / 'epoch_1.pth'
    _our_checkpoint(ours, source)
    convert_file(source, tmp_path / 'hf', layout_out='huggingface', num_heads=HEADS)
    model, report = transformers.ViTModel.from_pretrained(
        tmp_path / 'hf', add_pooling_layer=False, output_loading_info=True
    )
    assert not report['missing_keys'] and not report['unexpected_keys']
    torch.testing.assert_close(
        _tokens(model.eval(), images), _tokens(ours, images), rtol=1e-5, atol=1e-5
    )


def _live_hugging_face() -> str:
    """Layout of a ``ViTModel`` in memory; on disk all releases agree."""
    transformers = pytest.importorskip('transformers')
    return 'huggingface' if transformers.__version__.startswith('4.') else 'huggingface5'


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_export_to_a_hugging_face_file(suffix, images, tmp_path) -> None:
    """Weights alone, in the names of a ``ViTModel`` that somebody has built."""
    ours, source, target = _ours(), tmp_path / 'epoch_1.pth', tmp_path / f'out{suffix}'
    _our_checkpoint(ours, source)
    convert_file(source, target, layout_out=_live_hugging_face(), num_heads=HEADS)
    state = read_checkpoint(target)
    model = _hugging_face(add_pooling_layer=False)
    model.load_state_dict(state.get('state_dict', state))
    torch.testing.assert_close(_tokens(model, images), _tokens(ours, images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('layout', 'build'),
    [('timm', _timm), ('hugging_face', _hugging_face), ('torchvision', _torchvision)],
    ids=['timm', 'hugging_face', 'torchvision'],
)
def test_in_and_out_again_changes_no_bit(layout, build, tmp_path) -> None:
    """Every weight of the backbone comes back under its name; only heads and poolers stay out."""
    state = build().state_dict()
    layout = _live_hugging_face() if layout == 'hugging_face' else layout
    torch.save(state, tmp_path / 'in.pth')
    convert_file(tmp_path / 'in.pth', tmp_path / 'ours.safetensors', layout_in=layout)
    convert_file(tmp_path / 'ours.safetensors', tmp_path / 'out.pth', layout_out=layout)
    back = read_checkpoint(tmp_path / 'out.pth')
    back = back.get('state_dict', back)
    assert set(back) == {n for n in state if not n.startswith(('heads.', 'pooler.'))}
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_hugging_face_folder_comes_back(images, tmp_path) -> None:
    """What transformers itself saves, pooler and all, is read."""
    model = _hugging_face()
    model.save_pretrained(tmp_path / 'hf')
    convert_file(tmp_path / 'hf' / 'model.safetensors', tmp_path / 'out.pth')
    torch.testing.assert_close(
        _tokens(_load_ours(tmp_path / 'out.pth'), images),
        _tokens(model, images),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize('network', ['teacher', 'student'])
def test_public_dino_and_cribo_checkpoints(network, images, tmp_path) -> None:
    """Their entries, prefixes, heads, queues and argparse.Namespace."""
    models = dict(teacher=_timm(), student=_timm())
    content: dict = {
        'teacher': {f'backbone.{k}': v for k, v in models['teacher'].state_dict().items()},
        'student': {f'module.backbone.{k}': v for k, v in models['student'].state_dict().items()},
        'optimizer': dict(state={0: dict(step=3)}, param_groups=[dict(lr=0.1)]),
        'epoch': 4,
        'args': argparse.Namespace(arch='vit_small', patch_size=PATCH),
        'dino_loss': dict(center=torch.zeros(1, 7)),
        'centroids_queue_cpu': torch.zeros(2, 3),
    }
    content['teacher']['head.mlp.0.weight'] = torch.zeros(4, WIDTH)
    content['student']['module.head.mlp.0.weight'] = torch.zeros(4, WIDTH)
    torch.save(content, tmp_path / 'checkpoint.pth')
    convert_file(
        tmp_path / 'checkpoint.pth', tmp_path / 'out.pth', layout_in='cribo', network=network
    )
    tokens = _tokens(_load_ours(tmp_path / 'out.pth'), images)
    torch.testing.assert_close(tokens, _tokens(models[network], images), rtol=1e-5, atol=1e-5)


def test_old_torchvision_names() -> None:
    """The published files say linear_1 and linear_2."""
    state = _torchvision().state_dict()
    old = {
        k.replace('.mlp.0.', '.mlp.linear_1.').replace('.mlp.3.', '.mlp.linear_2.'): v
        for k, v in state.items()
    }
    new, again = to_backbone(state), to_backbone(old)
    assert len(new) == 6 + 12 * DEPTH
    assert all(torch.equal(new[k], again[k]) for k in new)


def test_a_vit_without_qkv_bias() -> None:
    """timm's qkv_bias=False has no such weights, and needs none."""
    state = {k: v for k, v in _timm().state_dict().items() if not k.endswith('qkv.bias')}
    assert 'layers.0.attn.qkv.bias' not in to_backbone(state)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('blocks.1.mlp.fc1.bias'), r'missing .*blocks\.1\.mlp\.fc1\.bias'),
        (lambda s: s.update({'blocks.0.ls1.gamma': torch.ones(3)}), r'unknown .*ls1\.gamma'),
        (
            lambda s: s.update({'blocks.2.attn.proj.weight': torch.ones(3, 3)}),
            r'layers\.2\.attn\.proj\.weight is \(3, 3\) and should be \(48, 48\)',
        ),
    ],
    ids=['missing', 'unknown', 'shape'],
)
def test_misfits_are_named(change, message) -> None:
    """A weight too few, too many, or of another shape."""
    state = dict(_timm().state_dict())
    change(state)
    with pytest.raises(LayoutError, match=message):
        to_backbone(state, source='x.pth')


def test_absent_network_and_foreign_model() -> None:
    """Only a student, asked for the teacher; and something that is no ViT."""
    with pytest.raises(LayoutError, match=r'x.pth: holds no teacher'):
        to_backbone(dict(student={}), source='x.pth')
    with pytest.raises(LayoutError, match=r'x.pth: no ViT in a known layout'):
        to_backbone({'conv1.weight': torch.ones(1)}, source='x.pth')


def test_command_line(repository, tmp_path, capsys, monkeypatch) -> None:
    """The tool prints the sizes, and one line where it cannot."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    tool = load_tool(repository, 'convert_checkpoint')
    _our_checkpoint(_ours(), tmp_path / 'epoch_1.pth')
    tool.main([str(tmp_path / 'epoch_1.pth'), str(tmp_path / 'out.safetensors'), '--to', 'timm'])
    assert f'embed_dims {WIDTH}' in capsys.readouterr().out
    assert 'blocks.0.norm1.weight' in read_checkpoint(tmp_path / 'out.safetensors')
    assert tool.main([str(tmp_path / 'absent.pth'), str(tmp_path / 'out.pth')]) == 1
    assert 'no such checkpoint file' in capsys.readouterr().err
