"""From a log and public weights to a page: the commands of docs/continue.md, one after another."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from s3pt_mm.cli import create_data, look, train
from s3pt_mm.weights.files import write_weights
from tests.conftest import beside_the_checkout

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)
SMALL = """
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{arch})),
    head=dict(num_prototypes=64, hidden_channels=32, bottleneck_channels=16),
    clustering=dict(num_clusters=16),
    queue_images=8,
)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4),
                     constructor='PretrainOptimConstructor')
epochs = 1
train_cfg = dict(_delete_=True, type='ExactEpochTrainLoop', max_epochs=1)
param_scheduler = []
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
"""


def public_weights(path: Path, layout: str) -> None:
    """A small random ViT as DINO (both networks, wrapped) or timm publishes it."""
    torch.manual_seed(0)
    names = dict(embed_dim=48, depth=2, num_heads=3, num_classes=0)
    state = timm.create_model('vit_small_patch16_224', **names).state_dict()
    if layout == 'timm':
        return write_weights(state, path, {})
    wrapped = {f'module.backbone.{name}': tensor for name, tensor in state.items()}
    torch.save({'student': wrapped, 'teacher': wrapped, 'epoch': 800}, path)


def a_log(root: Path) -> Path:
    """Two cameras and a LiDAR at four instants, as docs/data.md describes a folder."""
    generator = np.random.default_rng(0)
    cameras = {}
    turn = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    for camera in ('front', 'back'):
        (root / 'images' / camera).mkdir(parents=True)
        cameras[camera] = dict(fx=300, fy=300, cx=180, cy=128, lidar_to_camera=turn)
        for instant in range(4):
            noise = generator.integers(0, 255, (8, 12, 3)).astype(np.uint8)
            image = Image.fromarray(noise).resize((360, 256), Image.Resampling.BICUBIC)
            image.save(root / 'images' / camera / f'{instant:02d}.jpg')
    (root / 'lidar').mkdir()
    for instant in range(4):
        points = generator.uniform((2, -8, -2, 0), (40, 8, 4, 1), (2000, 4))
        points.astype(np.float32).tofile(root / 'lidar' / f'{instant:02d}.bin')
    calibration = dict(image_size=[360, 256], cameras=cameras, lidar=dict(num_features=4))
    (root / 'calibration.json').write_text(json.dumps(calibration))
    return root


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['made', 'pandaset-002', 'camvid'])
def test_log_and_public_weights_to_a_page(
    repository: Path, tmp_path: Path, monkeypatch, capsys, kind: str
) -> None:
    """``s3pt-data``, ``s3pt-train --init``, ``s3pt-look``, against where it started from."""
    monkeypatch.setattr(sys, 'path', [*sys.path, str(repository)])
    log = a_log(tmp_path / 'log') if kind == 'made' else beside_the_checkout(kind)
    images = log / 'images'
    public, work = tmp_path / 'public.pth', tmp_path / 'work'
    public_weights(public, 'timm' if kind == 'camvid' else 'dino')
    config = tmp_path / 'small.py'
    dataset, data = 'train_dataloader.dataset', tmp_path / 'data'
    if kind == 'camvid':  # photos alone
        base, options = (
            'vits16_image_folder',
            [f'{dataset}.data_root={images}', f'{dataset}.indices=16'],
        )
    else:
        assert create_data.main(['folder', str(log), '--out-dir', str(data)]) in (0, None)
        base = 'vits16_logs'
        options = [f'{dataset}.data_root={data}', f'{dataset}.ann_file=folder_infos_train.parquet']
    text = f"_base_ = ['{repository}/configs/s3pt/{base}.py']\n" + SMALL.format(arch=ARCH)
    config.write_text(text)
    if kind == 'pandaset-002':
        options.append(f'{dataset}.indices=16')
    command = [str(config), '--init', str(public), '--work-dir', str(work)]
    train.main([*command, '--cfg-options', *options])
    printed = ''.join(capsys.readouterr())
    assert f'weights of S3PTVisionTransformer from {public}' in printed.replace(
        'PretrainVisionTransformer', 'S3PTVisionTransformer'
    )
    assert 'loss_cross_view' in printed
    page = tmp_path / 'page.html'
    command = [str(work / 'epoch_1.pth'), str(images), '--against', str(public), '--out', str(page)]
    command += ['--image-size', '128', '224', '--max-images', '6', '--device', 'cpu']
    assert look.main([*command, '--clustering', 's3pt,num_clusters=16']) == 0
    printed = capsys.readouterr().out
    assert f'{work / "epoch_1.pth"}: 8 x 14 patches' in printed and 'MB, 6 images' in printed
    # Heads of the run's own file; DINO's file tells none: 48 / 64 would be one.
    data = json.loads(page.read_text().split('id="data">')[1].split('</script>')[0])
    assert [network['heads'] for network in data['networks']] == [3, 1]
    assert data['networks'][0]['features'] != data['networks'][1]['features']
