"""Every tool that writes ends with one line about a full disk, and leaves nothing half."""

import importlib

import numpy as np
import pytest
import torch
from mmpretrain.models.backbones import VisionTransformer
from PIL import Image

from tests.nuimages_tables import write_nuimages
from tests.test_common.test_files import limited
from tests.test_reliability.method_runs import TINY_VIT


def images(folder):
    folder.mkdir()
    for number in range(20):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / f'{number}.png')


def check_data(folder):
    images(folder / 'images')
    return [f'--folder={folder}/images', f'--out={folder}/out/check.json', '--workers=1']


def create_data(folder):
    write_nuimages(folder / 'root', 'v1.0-train', 2, seed=0)
    return [
        *('nuimages', f'--root={folder}/root', f'--out-dir={folder}/out', '--versions=v1.0-train'),
        '--workers=1',
    ]


def convert_checkpoint(folder):
    model = VisionTransformer(arch=TINY_VIT, img_size=48, patch_size=16, out_type='raw')
    state = {f'teacher.backbone.{name}': value for name, value in model.state_dict().items()}
    torch.save({'state_dict': state}, folder / 'in.pth')
    return [f'{folder}/in.pth', f'{folder}/out/weights.pth']


def create_toydrive(folder):
    return [f'--out={folder}/out/toydrive', '--tiny', '--only=nuimages', '--workers=1']


@pytest.mark.parametrize('tool', [check_data, create_data, convert_checkpoint, create_toydrive])
def test_one_line(tmp_path, capsys, tool):
    arguments = tool(tmp_path)
    main = importlib.import_module(f's3pt_mm.cli.{tool.__name__}').main
    try:
        status = limited(lambda: main(arguments), limit=10)
        said = capsys.readouterr().err
    except SystemExit as left:
        status, said = 1, str(left.code)
    assert status
    assert 'File too large' in said.splitlines()[-1], said
    assert str(tmp_path / 'out') in said.splitlines()[-1], said
    assert 'Traceback' not in said
    left = {path.name for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    assert left <= {'check.json.progress'}
