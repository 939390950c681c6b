"""A checkpoint as Hugging Face's and timm's own files, read back by those libraries."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s3pt_mm.cli import export
from s3pt_mm.cli.embed import read_image
from s3pt_mm.common.reading import read_checkpoint
from s3pt_mm.method.backbone import PretrainVisionTransformer
from s3pt_mm.weights import programs
from s3pt_mm.weights.any_vit import load_tokens
from s3pt_mm.weights.files import write_weights
from s3pt_mm.weights.plain_vit import from_state
from s3pt_mm.weights.timm_vit import TimmViT
from tests.test_weights.test_public import DINOV2, DINOV3, REGISTERS, SWIGLU


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A random ViT of two heads as this package stores it."""
    from mmpretrain.models import VisionTransformer

    torch.manual_seed(0)
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    model = VisionTransformer(arch=arch, img_size=32, patch_size=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    state = {f'teacher.backbone.{name}': value for name, value in model.state_dict().items()}
    write_weights(state, tmp_path / 'vit.pth', {})
    return tmp_path / 'vit.pth'


def test_hugging_face_reads_network_and_processor(checkpoint: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers')
    out = tmp_path / 'my-vit'
    command = [str(checkpoint), '--to', 'huggingface', '--out', str(out), '--num-heads', '2']
    assert export.main([*command, '--image-size', '32', '48']) == 0
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / 'frame.png')
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    inputs = processor(Image.open(tmp_path / 'frame.png'), return_tensors='pt')
    ours = read_image(tmp_path / 'frame.png', (32, 48))[None]
    assert inputs['pixel_values'].shape == ours.shape
    # Torchvision's bicubic rounds otherwise than Pillow's; a grey level is 0.017.
    assert (inputs['pixel_values'] - ours).abs().mean() < 0.017
    theirs = transformers.AutoModel.from_pretrained(out, add_pooling_layer=False).eval()
    with torch.no_grad():
        tokens = theirs(ours, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(
        tokens, load_tokens(checkpoint, num_heads=2)(ours)[0], atol=1e-4, rtol=0
    )
    assert 'width 16, 2 layers, patch 16' in (out / 'README.md').read_text()


def test_mistakes_are_one_line(checkpoint: Path, tmp_path: Path, capsys) -> None:
    for to, out, message in (
        ('huggingface', 'x.safetensors', 'x.safetensors: --to huggingface writes a folder'),
        ('timm', 'x', 'x: --to timm writes a file ending in .safetensors'),
        ('onnx', 'x.pt2', 'x.pt2: --to onnx writes a file ending in .onnx'),
        ('torch-export', 'x.onnx', 'x.onnx: --to torch-export writes a file ending in .pt2'),
    ):
        assert export.main([str(checkpoint), '--to', to, '--out', str(tmp_path / out)]) == 1
        error = capsys.readouterr().err.strip()
        assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    'to, name', [('timm', 'blocks.0.norm1.weight'), ('safetensors', 'pos_embed')]
)
def test_files_of_weights(checkpoint: Path, tmp_path: Path, to: str, name: str) -> None:
    from safetensors.torch import load_file

    out = tmp_path / 'out.safetensors'
    assert export.main([str(checkpoint), '--to', to, '--out', str(out)]) == 0
    assert name in load_file(out)


@pytest.mark.parametrize('resize', ['size', 'scale_factor'])
@pytest.mark.parametrize('to, ending', [('onnx', '.onnx'), ('torch-export', '.pt2')])
def test_programs(
    checkpoint: Path, tmp_path: Path, capsys, to: str, ending: str, resize: str
) -> None:
    """One file for all sizes, KITTI's strips and several images among them, to 1e-4."""
    out = tmp_path / f'vit{ending}'
    command = [str(checkpoint), '--to', to, '--out', str(out), '--num-heads', '2']
    if to == 'onnx':
        onnxruntime = pytest.importorskip('onnxruntime')
        pytest.importorskip('onnxscript')
    assert export.main([*command, '--resize', resize, '--image-size', '32', '80']) == 0
    printed = capsys.readouterr().out
    assert all(f'{size} pixels: tokens differ' in printed for size in ('32 x 32', '32 x 80'))
    wanted = from_state(
        read_checkpoint(checkpoint),
        'vit',
        num_heads=2,
        kind=partial(PretrainVisionTransformer, pos_embed_resize=resize),
    )
    if to == 'onnx':
        session = onnxruntime.InferenceSession(out, providers=['CPUExecutionProvider'])
        compute = lambda images: torch.from_numpy(session.run(None, {'images': images.numpy()})[0])
    else:
        compute = torch.export.load(out).module()
    for size in ((3, 32, 32), (1, 64, 208), (2, 32, 48), (1, 368, 1232)):
        images = torch.randn(size[0], 3, *size[1:])
        with torch.no_grad():
            expected = wanted(images)[0]
        torch.testing.assert_close(compute(images), expected, atol=1e-4, rtol=0)
    # The two ways to resize differ by more than the tolerance, so the test can tell them apart.
    other = from_state(read_checkpoint(checkpoint), 'vit', num_heads=2)
    images = torch.randn(1, 3, 64, 208)
    differs = (other(images)[0] - wanted(images)[0]).abs().max() > 1e-3
    assert differs == (resize == 'scale_factor')


def test_a_program_that_computes_something_else_is_not_written(
    checkpoint: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(programs, '_CUBIC', -0.5)
    out = tmp_path / 'vit.pt2'
    command = [str(checkpoint), '--num-heads', '2', '--to', 'torch-export', '--out', str(out)]
    assert export.main(command) == 1
    assert 'a token differs from the network by' in capsys.readouterr().err
    assert not list(tmp_path.glob('*vit.pt2*'))


def test_what_programs_need(checkpoint: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Missing libraries, an odd size and a resize that timm does not have are named."""
    torch.save(TimmViT(**REGISTERS).state_dict(), tmp_path / 'registers.pth')
    for file, options, message in (
        (
            tmp_path / 'registers.pth',
            ['--num-heads', '3', '--resize', 'scale_factor'],
            "--resize scale_factor: networks of timm resize positions in timm's way",
        ),
        (checkpoint, ['--image-size', '32', '40'], '(32, 40): no multiples of patch 16'),
        (
            checkpoint,
            [],
            '.onnx needs onnx, onnxscript, onnxruntime: pip install "s3pt_mm[export]"',
        ),
    ):
        if not options and file == checkpoint:
            monkeypatch.setattr(programs.importlib.util, 'find_spec', lambda name: None)
        command = [str(file), '--num-heads', '2', '--to', 'onnx', '--out', str(tmp_path / 'x.onnx')]
        assert export.main([*command, *options]) == 1
        error = capsys.readouterr().err.strip()
        assert message in error and len(error.splitlines()) == 1


def test_heads_of_a_folder(tmp_path: Path) -> None:
    """``config.json`` follows what lies beside the weights."""
    (tmp_path / 'in').mkdir()
    vit = load_tokens('random', timm='vit_tiny_patch16_224').model
    write_weights(vit.state_dict(), tmp_path / 'in' / 'model.safetensors', {})
    (tmp_path / 'in' / 'config.json').write_text('{"num_attention_heads": 4}')
    command = [str(tmp_path / 'in'), '--to', 'huggingface', '--out', str(tmp_path / 'out')]
    assert export.main(command) == 0
    config = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert config['num_attention_heads'] == 4


GATED = dict(DINOV3, name='vit_small_plus_patch16_dinov3_qkvb')
GIANT = dict(SWIGLU, mlp_ratio=5.34)  # 128 gates, as transformers makes them of a ratio of 4
FAMILIES = dict(dinov2=DINOV2, registers=REGISTERS, swiglu=GIANT, dinov3=DINOV3, gated=GATED)


def of_timm(family: str, path: Path) -> TimmViT:
    """A network of timm, every weight drawn, and its file as pre-training writes it."""
    torch.manual_seed(0)
    model = TimmViT(**FAMILIES[family]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = {f'teacher.backbone.{name}': value for name, value in model.state_dict().items()}
    torch.save({'state_dict': state}, path)
    return model


@pytest.mark.parametrize('to, ending', [('onnx', '.onnx'), ('torch-export', '.pt2')])
@pytest.mark.parametrize('family', ['registers', 'dinov3'])
def test_programs_of_timms_networks(
    tmp_path: Path, capsys, family: str, to: str, ending: str
) -> None:
    """Registers, resized and rotary positions: one file for all sizes, to 1e-4."""
    model, out = of_timm(family, tmp_path / 'vit.pth'), tmp_path / f'vit{ending}'
    if to == 'onnx':
        onnxruntime = pytest.importorskip('onnxruntime')
        pytest.importorskip('onnxscript')
    command = [str(tmp_path / 'vit.pth'), '--to', to, '--out', str(out), '--num-heads', '3']
    assert export.main(command) == 0
    assert 'to tokens (n, 5 + patches, 48)' in capsys.readouterr().out
    if to == 'onnx':
        session = onnxruntime.InferenceSession(out, providers=['CPUExecutionProvider'])
        compute = lambda images: torch.from_numpy(session.run(None, {'images': images.numpy()})[0])
    else:
        compute = torch.export.load(out).module()
    patch = model.patch_size[0]
    for count, rows, columns in ((3, 4, 4), (1, 2, 9), (2, 23, 7)):
        images = torch.randn(count, 3, rows * patch, columns * patch)
        with torch.no_grad():
            torch.testing.assert_close(compute(images), model(images)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize('family', FAMILIES)
def test_files_of_timms_networks(tmp_path: Path, family: str) -> None:
    """timm, transformers and this package read back what pre-training such a network gave."""
    timm = pytest.importorskip('timm')
    transformers = pytest.importorskip('transformers')
    model = of_timm(family, tmp_path / 'vit.pth')
    side = FAMILIES[family]['img_size']
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        (wanted,) = model(images)
    for to, out in (
        ('timm', 't.safetensors'),
        ('safetensors', 's.safetensors'),
        ('huggingface', 'hf'),
    ):
        command = [str(tmp_path / 'vit.pth'), '--to', to, '--out', str(tmp_path / out)]
        assert export.main([*command, '--num-heads', '3']) == 0
        again = load_tokens(tmp_path / out, num_heads=None if to == 'huggingface' else 3)
        torch.testing.assert_close(again(images)[0], wanted, atol=1e-4, rtol=0)
    settings = dict(FAMILIES[family])
    home = timm.create_model(
        settings.pop('name'),
        num_classes=0,
        checkpoint_path=str(tmp_path / 't.safetensors'),
        **settings,
    ).eval()
    theirs = transformers.AutoModel.from_pretrained(tmp_path / 'hf').eval()
    assert 'pixel' in str(
        transformers.AutoImageProcessor.from_pretrained(tmp_path / 'hf').model_input_names
    )
    with torch.no_grad():
        torch.testing.assert_close(home.forward_features(images), wanted, atol=1e-4, rtol=0)
        tokens = theirs(images).last_hidden_state
    torch.testing.assert_close(tokens, wanted, atol=1e-4, rtol=0)
    assert f'(1, {model.num_extra_tokens} + patches, 48)' in (tmp_path / 'hf/README.md').read_text()


def test_what_transformers_does_not_have_is_named(tmp_path: Path, capsys) -> None:
    torch.save(TimmViT(**SWIGLU).state_dict(), tmp_path / 'gates.pth')
    command = [str(tmp_path / 'gates.pth'), '--num-heads', '3', '--to', 'huggingface']
    assert export.main([*command, '--out', str(tmp_path / 'hf')]) == 1
    assert '48 hidden numbers at width 48' in capsys.readouterr().err
    name = 'eva02_tiny_patch14_224'
    torch.save(TimmViT(name).state_dict(), tmp_path / 'eva.pth')
    command = [str(tmp_path / 'eva.pth'), '--timm', name, '--to', 'huggingface']
    assert export.main([*command, '--out', str(tmp_path / 'hf')]) == 1
    assert 'only DINOv2 and DINOv3 have a twin' in capsys.readouterr().err
