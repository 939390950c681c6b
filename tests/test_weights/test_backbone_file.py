"""The file beside every checkpoint: timm, transformers and mmpretrain compute the same from it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.models import VisionTransformer
from safetensors import safe_open
from torch import nn

from s3pt_mm.resume.background import host_copy
from s3pt_mm.resume.checkpoint_files import remove
from s3pt_mm.weights.backbone_file import BackboneFileHook

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)

WORDS = {'timm': ', timm', 'transformers': 'import ViTModel', 'mmpretrain': ', mmpretrain'}


@pytest.fixture
def model() -> nn.Module:
    """What the hook looks at: a teacher's backbone and a preprocessor."""
    backbone = VisionTransformer(arch=ARCH, img_size=32, patch_size=16, out_type='raw')
    backbone.eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.1)
    teacher = nn.ModuleDict({'backbone': backbone})
    model = nn.Module()
    model.teacher, model.data_preprocessor = teacher, nn.Module()
    for name, value in (('mean', [123.675, 116.28, 103.53]), ('std', [58.395, 57.12, 57.375])):
        model.data_preprocessor.register_buffer(name, torch.tensor(value).view(3, 1, 1))
    return model


def save(model: nn.Module, folder: Path, hook: BackboneFileHook, **entries: object) -> Path:
    """What SafeCheckpointHook does before it writes ``epoch_3.pth``; returns the file's place."""
    hub = MessageHub.get_instance(f'backbone_{folder.name}')
    hub.update_info('last_ckpt', str(folder / 'epoch_3.pth'))
    content = {'state_dict': model.state_dict(), **entries}
    hook.before_save_checkpoint(SimpleNamespace(model=model, message_hub=hub), content)
    copied = host_copy(content)
    for parameter in model.parameters():
        parameter.data += 1  # training goes on while it is written
    for write in copied.pop('write_beside', ()):
        write()
    for parameter in model.parameters():
        parameter.data -= 1
    return folder / 'epoch_3.backbone.safetensors'


@pytest.fixture
def file(model, tmp_path) -> Path:
    """The written file."""
    return save(model, tmp_path, BackboneFileHook(), exact_resume={})


def test_metadata_say_how_to_feed_it(file) -> None:
    """Both JSON texts: sizes, and the normalisation for pixels in [0, 1]."""
    with safe_open(file, 'pt') as opened:
        texts = {
            name: json.loads(opened.metadata()[name]) for name in ('architecture', 'preprocessing')
        }
    assert texts['preprocessing']['mean'] == [0.485, 0.456, 0.406]
    assert texts['preprocessing']['std'] == [0.229, 0.224, 0.225]
    assert texts['architecture']['mmpretrain'] == dict(arch=ARCH, img_size=32, patch_size=16)


def snippet(repository: Path, word: str) -> str:
    """The Python block of docs/checkpoints.md in which a word stands."""
    text = (repository / 'docs' / 'checkpoints.md').read_text()
    (found,) = [block for block in re.findall(r'```python\n(.*?)```', text, re.S) if word in block]
    return found


@pytest.mark.parametrize('library', ['timm', 'transformers', 'mmpretrain'])
def test_snippets_of_the_docs_compute_the_same(
    library, file, model, repository, tmp_path, monkeypatch, capsys
) -> None:
    """Each block runs as it is printed, beside the file, and gives the teacher's tokens."""
    pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    if library != 'timm':
        from s3pt_mm.cli.convert_checkpoint import main

        line = next(
            line
            for line in (repository / 'docs' / 'checkpoints.md').read_text().splitlines()
            if line.startswith('s3pt-convert epoch_3')
            and ('hf' in line) == (library != 'mmpretrain')
        )
        main(line.split('#')[0].split()[1:] + ['--num-heads', '3'])
    names: dict = {}
    exec(snippet(repository, f'{WORDS[library]}\n'), names)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.teacher['backbone'](images)[-1]
        network = names['model']
        network.eval()
        if library == 'timm':
            tokens = network.forward_features(images)
        elif library == 'transformers':
            tokens = network(images).last_hidden_state
        else:
            network.out_type = 'raw'
            tokens = network(images)[-1]
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)


def test_goes_with_its_checkpoint(file) -> None:
    """Whoever prunes ``epoch_3.pth`` leaves no backbone behind."""
    remove(file.parent / 'epoch_3.pth')
    assert not list(file.parent.iterdir())


def test_a_best_checkpoint_changes_no_file(model, tmp_path) -> None:
    """It is saved at other weights, under another name."""
    assert not save(model, tmp_path, BackboneFileHook()).exists()


def test_another_backbone_is_said_once_and_costs_nothing(model, tmp_path, caplog) -> None:
    """A ResNet trains as before; no half-written file, no error."""
    model.teacher['backbone'] = nn.Sequential(nn.Conv2d(3, 8, 3))
    hook = BackboneFileHook()
    assert not save(model, tmp_path, hook, exact_resume={}).exists()
    assert hook._useless and not list(tmp_path.iterdir())
