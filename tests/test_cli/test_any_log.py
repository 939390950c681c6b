"""Every format, by the commands alone: s3pt-data, s3pt-check, s3pt-look-at-data, s3pt-train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from s3pt_mm.cli import check_data, create_data, look_at_data, train
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from tests.test_data.test_formats import containers, logs
from tests.test_data.test_formats.test_adapters import CALIBRATION, write_folder

#: Format of ``s3pt-data``, and what writes a log of it.
LOGS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    'folder': ('folder', lambda root: write_folder(root, CALIBRATION)),
    'images alone': ('folder', lambda root: write_folder(root, None)),
    'KITTI raw': ('kitti-raw', logs.write_kitti_raw),
    'KITTI object': ('kitti-object', logs.write_kitti_object),
    'PandaSet': ('pandaset', logs.write_pandaset),
    'Argoverse 2': ('argoverse2', containers.write_argoverse2),
    'Waymo': ('waymo', lambda root: containers.write_waymo(root, np.eye(4))),
    'ROS 2 bag': ('rosbag', containers.write_bag),
    'MCAP': ('rosbag', lambda root: containers.write_bag(root, storage='mcap')),
    'video': ('video', lambda root: containers.write_video(root / 'drive 1.mp4').parent),
}
CONFIG = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(_delete_=True, type='S3PTVisionTransformer', img_size=64, patch_size=16,
                  out_type='raw', arch=dict(embed_dims=32, num_layers=1, num_heads=2,
                                            feedforward_channels=64)),
    head=dict(num_prototypes=16, hidden_channels=16, bottleneck_channels=8),
    clustering=dict(num_clusters=4), queue_images=2)
train_pipeline = _base_.train_pipeline
for step in train_pipeline:
    if step['type'] == 'TwoViews':
        step['size'] = 64
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,
                        dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=1)
param_scheduler = []
train_cfg = dict(_delete_=True, type='ExactIterTrainLoop', max_iters=2)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2), logger=dict(interval=1))
"""


@pytest.mark.parametrize('kind', LOGS)
def test_from_a_log_to_a_checkpoint(kind, tmp_path, repository, capsys) -> None:
    """Whole data have no problem, an image that goes is the one reported, two steps are trained."""
    name, write = LOGS[kind]
    out, root = tmp_path / 'my data', write(tmp_path / 'the log')
    assert create_data.main([name, str(root), '--out-dir', str(out)]) == 0
    info = out / f'{name}_infos_train.parquet'
    data = NuScenesImages(ann_file=info.name, data_root=str(out))
    with_lidar = sum('lidar_points' in data.get_data_info(i) for i in range(len(data)))
    assert (with_lidar > 0) == (kind not in ('images alone', 'video'))

    config = tmp_path / 'tiny.py'
    config.write_text(CONFIG.format(base=str(repository / 'configs/s3pt/vits16_logs.py')))
    options = [f'train_dataloader.dataset.data_root={out}',
               f'train_dataloader.dataset.ann_file={info.name}']  # fmt: skip
    report, workers = tmp_path / 'report.json', ['--workers', '1']
    for source in (['--info', str(info)], ['--config', str(config), '--cfg-options', *options]):
        lacking = 0 < with_lidar < len(data)  # KITTI raw lacks a sweep, a bag's second camera all
        assert check_data.main([*source, '--out', str(report), *workers]) == lacking
        found = json.loads(report.read_text())
        assert found['images'] == len(data)
        assert found['counts']['no lidar'] == lacking * (len(data) - with_lidar)
        assert len(found['problems']) == found['counts']['no lidar']

    pictures = tmp_path / 'pictures'
    assert look_at_data.main([str(info), '--out-dir', str(pictures), '--width', '80']) == 0
    assert len(list(pictures.iterdir())) == sum(min(4, len(i)) for i in data.by_camera.values())
    assert ('0 to 0 returns' not in capsys.readouterr().out) or with_lidar < len(data)

    work = tmp_path / 'work'
    train.main([str(config), '--work-dir', str(work), '--cfg-options', *options])
    state = torch.load(work / 'iter_2.pth', weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())

    gone = Path(data.get_data_info(len(data) - 1)['img_path']).resolve()
    gone.unlink()
    assert check_data.main(['--info', str(info), '--out', str(report), *workers]) == 1
    problems = json.loads(report.read_text())['problems']
    (missing,) = [problem for problem in problems if problem['kind'] == 'missing']
    assert Path(missing['file']).name == gone.name
