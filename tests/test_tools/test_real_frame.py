"""The documented commands on one real nuScenes key frame: full ViT-S/16, 65,536 prototypes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize('method', ['s3pt', 'cribo', 'dino'])
def test_trains_on_the_real_frame(
    method: str, one_frame: Path, repository: Path, tmp_path: Path
) -> None:
    def tool(*command: object) -> None:
        command = [sys.executable, *map(str, command)]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=850)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    tool(
        'tools/create_data.py',
        'nuscenes',
        '--root',
        one_frame,
        '--version',
        'v1.0-mini',
        '--out-dir',
        tmp_path,
    )
    tool(
        *('tools/train.py', f'configs/{method}/vits16_nuscenes.py', '--work-dir', tmp_path / 'run'),
        '--cfg-options',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        f'train_dataloader.dataset.data_root={one_frame}',
        f'train_dataloader.dataset.ann_file={tmp_path}/nuscenes_infos_train.pkl',
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
    )
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 3  # six cameras, two a step
    assert all(math.isfinite(loss) for loss in losses)
    text = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'no LiDAR depth' not in text
    if method != 'dino':
        assert all(line['objects_per_image'] > 0 for line in lines if 'loss' in line)
