"""tools/slurm_train.sh asks for what the configs use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mmengine.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_rank_gets_a_core_for_each_data_worker(tmp_path: Path) -> None:
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    config = REPOSITORY / 'configs' / 's3pt' / 'vits16_nuscenes.py'
    out = subprocess.run(
        [REPOSITORY / 'tools' / 'slurm_train.sh', 'gpu', 'job', config, 'work'],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
    ).stdout.splitlines()
    workers = Config.fromfile(config, import_custom_modules=False).train_dataloader.num_workers
    assert f'--cpus-per-task={workers}' in out
