"""A shipped method that blows up: the report names real files, and gives the same views again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS

from s3pt_mm.resume.divergence import TrainingDiverged
from s3pt_mm.resume.keyed_sampler import KeyedIndex
from tests.test_reliability.method_runs import small_config


@pytest.mark.parametrize('config', ['toydrive/dino_vitt16.py', 'toydrive/s3pt_vitt16.py'])
def test_a_rate_that_is_far_too_high(tmp_path: Path, toydrive: Path, config: str) -> None:
    cfg = small_config(config, toydrive, tmp_path, **{'optim_wrapper.optimizer.lr': 1e30})
    runner = Runner.from_cfg(cfg)
    with pytest.raises(TrainingDiverged, match=r'Iteration \d: .* not finite'):
        runner.train()
    (report,) = (tmp_path / 'divergence').glob('iter_*.json')
    (batch,) = json.loads(report.read_text())['samples_of_ranks']
    assert len(batch) == 4
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    for sample in batch:
        assert Path(sample['img_path']).is_file()
        key = sample['sample_idx'], sample['sampler_seed'], sample['sampler_epoch']
        again, other = dataset[KeyedIndex(*key)], dataset[KeyedIndex(*key)]
        assert again['data_samples'].img_path == sample['img_path']
        assert int(again['data_samples'].sample_seed) == sample['sample_seed']
        assert all(torch.equal(a, b) for a, b in zip(again['inputs'], other['inputs'], strict=True))
    # What the last checkpoint holds is finite, if there was one.
    for path in tmp_path.glob('*.pth'):
        state = torch.load(path, weights_only=True)['state_dict'].values()
        assert all(torch.isfinite(v).all() for v in state if v.is_floating_point())
