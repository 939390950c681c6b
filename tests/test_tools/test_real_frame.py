"""The documented commands on a nuScenes key frame, real or made: full ViT-S/16, all prototypes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tool_runs import run_tool


def read_log(work_dir: Path) -> tuple[list[dict], str]:
    """Lines of the JSON log that have a loss, and the text log."""
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if 'loss' in line], next(work_dir.glob('*/*.log')).read_text()


SMALL = (
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
)


@pytest.mark.slow
@pytest.mark.parametrize('method', ['s3pt', 'cribo', 'dino'])
def test_trains_on_a_frame(method: str, any_frame: Path, repository: Path, tmp_path: Path) -> None:
    run_tool(
        repository,
        *('tools/create_data.py', 'nuscenes', '--root', any_frame),
        *('--version', 'v1.0-mini', '--out-dir', tmp_path),
    )
    run_tool(
        repository,
        *('tools/train.py', f'configs/{method}/vits16_nuscenes.py', '--work-dir', tmp_path / 'run'),
        *('--cfg-options', *SMALL, f'train_dataloader.dataset.data_root={any_frame}'),
        f'train_dataloader.dataset.ann_file={tmp_path}/nuscenes_infos_train.parquet',
    )
    lines, text = read_log(tmp_path / 'run')
    assert len(lines) == 3  # six cameras, two a step
    assert all(math.isfinite(line['loss']) for line in lines)
    assert 'no LiDAR depth' not in text
    if method != 'dino':
        assert all(line['objects_per_image'] > 0 for line in lines)
    # TensorBoard has what the JSON log has.
    assert list((tmp_path / 'run').glob('*/vis_data/events.out.tfevents.*'))


@pytest.mark.slow
def test_any_folder_of_images_trains_without_lidar(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'photos' / 'monday'
    folder.mkdir(parents=True)
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(folder / f'{seed}.jpg')
    run_tool(
        repository,
        *('tools/train.py', 'configs/s3pt/vits16_image_folder.py', '--work-dir', tmp_path / 'run'),
        *('--cfg-options', *SMALL, f'train_dataloader.dataset.data_root={folder.parent}'),
        # A smaller network: the run is the documented one, its size is the other test's business.
        *('model.head.num_prototypes=512', 'model.queue_images=8'),
    )
    lines, text = read_log(tmp_path / 'run')
    assert len(lines) == 2 and all(math.isfinite(line['loss']) for line in lines)
    assert text.count('holds no LiDAR depth') == 1
