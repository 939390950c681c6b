"""``tools/dev/make_demo.py`` from data to report on a tiny ToyDrive, then again with all there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from s3pt_mm.toydrive import ToyDriveConfig, generate
from tests.tool_runs import run_tool

SHORT = (
    'train_dataloader.batch_size=4',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
)


def demo(repository: Path, data: Path, out: Path, *options: str) -> str:
    return run_tool(
        repository,
        'tools/dev/make_demo.py',
        '--data',
        data,
        '--out',
        out,
        '--cfg-options',
        *options,
    )


@pytest.mark.slow
def test_report_of_a_short_run_and_of_the_same_run_continued(
    repository: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / 'toydrive', tmp_path / 'out'
    generate(data, ToyDriveConfig.tiny(outputs=('nuscenes', 'nuimages')), progress=False)
    demo(repository, data, out, *SHORT, 'train_cfg.max_epochs=1')
    first = json.loads((out / 'knn_probe.json').read_text())
    assert [point['iteration'] for point in first] == [0, 3]  # 12 images, four a step

    log = demo(repository, data, out, *SHORT, 'train_cfg.max_epochs=2')
    epochs = set(re.findall(r'Epoch\(train\)\s+\[(\d+)\]', log))
    assert epochs == {'2'}  # goes on where it was
    history = json.loads((out / 'knn_probe.json').read_text())
    assert history[:2] == first
    assert [point['iteration'] for point in history] == [0, 3, 6]

    page = (out / 'report.html').read_text()
    best = max(history[-1]['controls'].values(), key=lambda found: found['mIoU'])
    assert f'{history[-1]["mIoU"] - best["mIoU"]:+.2f} points' in page
    for name, found in history[-1]['controls'].items():
        assert name in page and f'<td>{found["IoU"]["car"]:.1f}</td>' in page
    pictures = {'clusters', 'knn', 'lidar', 'losses', 'neighbours', 'pca'}
    assert {path.stem for path in out.glob('*.png')} == pictures
    assert len(re.findall(r'src="data:image/', page)) == len(pictures)  # nothing to fetch
