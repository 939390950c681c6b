"""A checkpoint as Hugging Face's and timm's own files, read back by those libraries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s3pt_mm.cli import export
from s3pt_mm.cli.embed import read_image
from s3pt_mm.weights.any_vit import load_tokens
from s3pt_mm.weights.files import write_weights


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
