"""The whole chain through tools/train.py and tools/test.py: it learns, and it runs on real data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import pytest
import torch

from s3pt_mm.data.datasets.nuscenes_infos import create_infos
from tests.tool_runs import load_tool


def _data_options(root: Path, infos: Path) -> list[str]:
    loaders = ('train', 'val', 'test')
    return [
        *(f'{name}_dataloader.dataset.data_root={root}/' for name in loaders),
        *(f'{name}_dataloader.dataset.ann_file={infos}' for name in loaders),
    ]


def _scalars(work: Path) -> list[dict]:
    lines = [path.read_text().splitlines() for path in sorted(work.glob('*/vis_data/scalars.json'))]
    return [json.loads(line) for file in lines for line in file if line.startswith('{')]


@pytest.mark.slow
def test_overfits_the_samples_it_is_tested_on(
    toydrive: Path, repository: Path, tmp_path: Path
) -> None:
    """The shipped ToyDrive config on a tiny ToyDrive: mAP over 0.5 on its two training samples.

    The frozen backbone has random weights here, so this shows the chain (data, targets, head,
    losses, schedule, decoding, metric), not the pre-training. The same from the demo's S3PT
    checkpoint is a command; its log is in docs/detection.md.
    """
    work = tmp_path / 'work'
    load_tool(repository, 'train').main(
        [
            str(repository / 'configs/toydrive/petr_vitt16.py'),
            *('--work-dir', str(work), '--cfg-options'),
            'model.img_backbone.init_cfg.checkpoint=random',
            *_data_options(toydrive, toydrive / 'nuscenes_infos_train.parquet'),
            f'val_evaluator.data_root={toydrive}',
        ]
    )
    (result,) = [line for line in _scalars(work) if 'subset/mAP' in line]
    assert result['subset/mAP'] > 0.5
    assert result['subset/mATE'] < 0.5  # metres
    losses = [line['loss'] for line in _scalars(work) if 'loss' in line]
    assert losses[-1] < 0.5 * losses[0]


SMALL = """
_base_ = [{base!r}]
model = dict(
    img_backbone=dict(
        arch=dict(_delete_=True, embed_dims=48, num_layers=1, num_heads=3, feedforward_channels=64),
        init_cfg=dict(checkpoint='random'),
    ),
    pts_bbox_head=dict(
        in_channels=48, embed_dims=48, num_query=60, depth_num=16,
        decoder=dict(num_layers=2, num_heads=4, feedforward_channels=64),
    ),
)
val_evaluator = dict(_delete_=True, type='NuScenesSubsetMetric', data_root={root!r})
test_evaluator = [
    dict(type='NuScenesSubsetMetric', data_root={root!r}, submission={submission!r}),
    dict(type='NuScenesMetric', data_root={root!r}, ann_file={infos!r}, format_only=True,
         jsonfile_prefix={prefix!r}, modality=dict(
             use_camera=True, use_lidar=False, use_radar=False, use_map=False, use_external=False)),
]
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(
    logger=dict(interval=1), visualization=dict(draw=True, interval=1, score_thr=0.0))
"""


@pytest.mark.slow
def test_a_frame_through_both_tools(one_frame: Path, repository: Path, tmp_path: Path) -> None:
    """One step at 320 x 800, evaluation, both submission files, a panel by the hook and by test.py.

    The shipped config with a small model: what is tested is the chain, not the size.
    """
    work, config = tmp_path / 'work', tmp_path / 'small.py'
    create_infos(root=one_frame, version='v1.0-mini', out_dir=tmp_path, workers=1)
    infos = tmp_path / 'nuscenes_infos_train.parquet'
    config.write_text(
        SMALL.format(
            base=str(repository / 'configs/petr/vits16_nuscenes.py'),
            root=f'{one_frame}/',
            infos=str(infos),
            submission=str(tmp_path / 'uncut.json'),
            prefix=str(tmp_path / 'official'),
        )
    )
    common = [str(config), '--work-dir', str(work)]
    options = ['--cfg-options', *_data_options(one_frame, infos)]
    load_tool(repository, 'train').main([*common, *options])
    lines = _scalars(work)
    (loss,) = [line['loss'] for line in lines if 'loss' in line]
    assert math.isfinite(loss)
    assert any('subset/NDS' in line for line in lines)
    weights = torch.load(work / 'epoch_1.pth', weights_only=True)['state_dict']
    assert all(torch.isfinite(value).all() for value in weights.values())
    (painted,) = work.glob('*/vis_data/vis_image/val_*.png')
    assert cv2.imread(str(painted)).std() > 20

    checkpoint = str(work / 'epoch_1.pth')
    test = [common[0], checkpoint, *common[1:], '--show-dir', 'pictures', '--score-thr', '0.2']
    load_tool(repository, 'test').main([*test, *options])
    (panel,) = work.glob('*/pictures/*.png')
    assert cv2.imread(str(panel)).std() > 20
    (official,) = tmp_path.glob('official*/**/*.json')
    for path in (tmp_path / 'uncut.json', official):
        content = json.loads(path.read_text())
        assert content['meta']['use_camera'] and not content['meta']['use_lidar']
        ((token, boxes),) = content['results'].items()
        assert token in panel.name
        assert 0 < len(boxes) <= 300
        assert {box['sample_token'] for box in boxes} == {token}
        assert all(len(box['velocity']) == 2 and len(box['rotation']) == 4 for box in boxes)
