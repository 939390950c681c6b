"""One door for the ViT of any file: what it is, is read from its weights and what lies beside."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from s3pt_mm.common.errors import DataError
from s3pt_mm.method.backbone import PretrainVisionTransformer
from s3pt_mm.weights.any_vit import load_tokens, patch_size, timm_settings, told_heads
from s3pt_mm.weights.backbone_file import describe
from s3pt_mm.weights.convert import convert_file, from_backbone
from s3pt_mm.weights.files import write_weights
from s3pt_mm.weights.layouts import LayoutError
from s3pt_mm.weights.timm_vit import TimmViT
from tests.test_weights.test_public import (
    DINOV2,
    DINOV3,
    REGISTERS,
    SWIGLU,
    as_published,
    at_home,
    hugging_face,
)


@pytest.mark.parametrize(
    'settings', [DINOV2, REGISTERS, SWIGLU, DINOV3], ids=['dinov2', 'registers', 'swiglu', 'dinov3']
)
@pytest.mark.parametrize('names', ['timm', 'published', 'ours'])
def test_families_are_known_by_their_weights(settings: dict, names: str, tmp_path: Path) -> None:
    """No name is given; every token to 1e-5, at another size than the home's."""
    model = at_home(**settings)
    state = as_published(model) if names == 'published' else model.state_dict()
    if names == 'ours':
        state = {f'teacher.backbone.model.{name}': t for name, t in state.items()}
    torch.save({'state_dict': state}, tmp_path / 'vit.pth')
    ours = load_tokens(tmp_path / 'vit.pth', num_heads=3)
    side = patch_size(ours)
    images = torch.randn(1, 3, 3 * side, 5 * side)
    with torch.no_grad():
        expected = model.forward_features(images)
    torch.testing.assert_close(ours(images)[0], expected, rtol=1e-5, atol=1e-5)
    assert not ours.training and not any(p.requires_grad for p in ours.parameters())


@pytest.mark.parametrize('kind', ['dinov2', 'registers', 'swiglu', 'dinov3'])
def test_hugging_face_folder_tells_its_heads(kind: str, tmp_path: Path) -> None:
    model, settings = hugging_face(kind)
    model.eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / 'hf')
    images = torch.randn(1, 3, settings['img_size'], settings['img_size'])
    with torch.no_grad():
        expected = model(images).last_hidden_state
    got = load_tokens(tmp_path / 'hf')(images)[0]  # three heads of 16: no default would find it
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def plain(tmp_path: Path) -> nn.Module:
    """``epoch_1.pth`` of a ViT of 8 heads of 2, with the file that a run leaves beside it."""
    from mmpretrain.models import VisionTransformer

    arch = dict(embed_dims=16, num_layers=2, num_heads=8, feedforward_channels=32)
    model = VisionTransformer(arch=arch, img_size=32, patch_size=16, out_type='raw')
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = model.state_dict()
    write_weights({f'teacher.backbone.{n}': t for n, t in state.items()}, tmp_path / 'e.pth', {})
    text = {'architecture': json.dumps(describe(state, 8))}
    write_weights(from_backbone(state, 'timm'), tmp_path / 'e.backbone.safetensors', text)
    model.eval()
    return model


@pytest.mark.parametrize('name', ['e.pth', 'e.backbone.safetensors'])
def test_heads_come_from_the_backbone_file(name: str, tmp_path: Path) -> None:
    model, images = plain(tmp_path), torch.randn(1, 3, 32, 48)
    assert told_heads(tmp_path / name) == 8
    with torch.no_grad():
        expected = model(images)[0]
    torch.testing.assert_close(load_tokens(tmp_path / name)(images)[0], expected)
    other = load_tokens(tmp_path / name, num_heads=1)(images)[0]  # the word of the user counts
    assert not torch.allclose(other, expected, atol=1e-3)


def stemmed() -> PretrainVisionTransformer:
    arch = dict(embed_dims=16, num_layers=1, num_heads=1, feedforward_channels=32)
    sizes = dict(img_size=32, patch_size=8, out_type='raw')
    model = PretrainVisionTransformer(arch=arch, **sizes, stem='convolutions')
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize('resize', ['size', 'scale_factor'])
def test_a_stem_of_convolutions_is_known_by_its_weights(tmp_path: Path, resize: str) -> None:
    model, images = stemmed(), torch.randn(1, 3, 32, 48)
    model.pos_embed_resize = resize
    state = {f'teacher.backbone.{name}': t for name, t in model.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'stem.pth')
    kinds = dict(kind=partial(PretrainVisionTransformer, pos_embed_resize=resize))
    ours = load_tokens(tmp_path / 'stem.pth', **(kinds if resize != 'size' else {}))
    assert patch_size(ours) == 8 and not any(p.requires_grad for p in ours.parameters())
    with torch.no_grad():
        torch.testing.assert_close(ours(images)[0], model(images)[0])


def test_no_other_layout_has_a_stem(tmp_path: Path) -> None:
    """Never written without it: a ViT without its patches would load elsewhere and say nothing."""
    torch.save(stemmed().state_dict(), tmp_path / 'stem.pth')
    with pytest.raises(LayoutError, match=r'stem\.pth: patches from a stem of convolutions'):
        convert_file(tmp_path / 'stem.pth', tmp_path / 'out.safetensors', layout_out='timm')
    assert not (tmp_path / 'out.safetensors').exists()


def test_a_damaged_stem_is_refused(tmp_path: Path) -> None:
    state = stemmed().state_dict()
    damaged = {
        'projection.1.bias is absent': {
            n: t for n, t in state.items() if n != 'patch_embed.projection.1.bias'
        },
        r'patch_embed.projection.0.weight is \(4, 1, 3, 3\) in the file': {
            n: t[:, :1] if n == 'patch_embed.projection.0.weight' else t for n, t in state.items()
        },
        r'patch_size is 1 \(a power of two\)': {
            n: t for n, t in state.items() if 'projection' not in n or 'projection.9' in n
        },
        'missing.*cls_token': {n: t for n, t in state.items() if n != 'cls_token'},
    }
    for words, weights in damaged.items():
        torch.save(weights, tmp_path / 'stem.pth')
        with pytest.raises(LayoutError, match=words):
            load_tokens(tmp_path / 'stem.pth')


def test_random_weights_only_by_that_word(tmp_path: Path) -> None:
    model = load_tokens('random', timm='vit_tiny_patch16_224')
    assert isinstance(model, TimmViT) and model.embed_dims == 192
    again = load_tokens('random', timm='vit_tiny_patch16_224')
    assert model.model.cls_token.equal(again.model.cls_token)
    for absent in ('', 'Random', tmp_path / 'random'):
        with pytest.raises(FileNotFoundError):
            load_tokens(absent)


def test_misfits(tmp_path: Path) -> None:
    torch.save({'state_dict': {'conv.weight': torch.zeros(3)}}, tmp_path / 'cnn.pth')
    with pytest.raises(LayoutError, match='cnn.pth: no ViT in a known layout'):
        load_tokens(tmp_path / 'cnn.pth')
    torch.save(at_home(**DINOV2).state_dict(), tmp_path / 'x.pth')
    with pytest.raises(LayoutError, match=r'x\.pth has patches of \(14, 14\) pixels'):
        load_tokens(tmp_path / 'x.pth', timm='vit_tiny_patch16_224')
    write_weights({'a': torch.zeros(1)}, tmp_path / 'y.safetensors', {'architecture': '[1'})
    with pytest.raises(DataError, match=r'y\.safetensors: its description is damaged'):
        told_heads(tmp_path / 'y.safetensors')
    assert timm_settings({'conv.weight': torch.zeros(3)}, None) is None


@pytest.mark.parametrize('heads', ['"x"', '1e999', '[' * 10**5, '{}'])
def test_a_damaged_description_of_a_folder(tmp_path: Path, heads: str) -> None:
    (tmp_path / 'config.json').write_text(f'{{"num_attention_heads": {heads}}}')
    with pytest.raises(DataError, match=r'config\.json: its description is damaged'):
        told_heads(tmp_path)
