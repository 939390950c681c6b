"""The benchmarks of a pre-training step run, and what must not depend on the machine holds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from s3pt_mm.method.algorithms import S3PT
from tools.dev import benchmark_pretrain as pretrain
from tools.dev import benchmark_scaling as scaling
from tools.dev.memory import peak_bytes

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TOY = str(CONFIGS / 'toydrive/s3pt_vitt16.py')


def parse(module, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(words)


def test_peak_bytes_counts_what_lives_at_once() -> None:
    def function() -> None:
        first = torch.zeros(1000, 1000)
        del first
        torch.zeros(500, 1000), torch.zeros(700, 1000)

    assert peak_bytes(function, torch.device('cpu')) == pytest.approx(4.8e6, rel=1e-3)


@pytest.mark.parametrize('config', [TOY, TOY.replace('s3pt', 'dino')], ids=['s3pt', 'dino'])
def test_step_against_floor(config: str, capsys) -> None:
    args = parse(pretrain, config, '--batch', '2', '--repeats', '1', '--device', 'cpu', '--no-data')
    figures = pretrain.run(args)
    parts = figures['medians']
    inside = sum(parts[name] for name in pretrain.PARTS if name in parts)
    # The parts make the step: nothing is counted twice and little escapes.
    assert 0.8 * parts['step'] < inside < 1.02 * parts['step']
    assert figures['floor'] > parts['bare ViT'] > 0 and figures['peak_gb'] > 0.1
    assert ('clustering' in parts) == (config == TOY)
    assert 'whole step' in capsys.readouterr().out


def test_growth_is_measured(capsys) -> None:
    args = parse(scaling, TOY, '--batch', '2', '--objects', '4', '--repeats', '1')
    figures = scaling.run(args)
    assert set(figures) == set(scaling.TARGETS)
    assert figures['images']['ratio'] > 1.5 and figures['memory']['ratio'] > 0.9
    assert 'target' in capsys.readouterr().out


def test_memory_of_heads_and_losses_is_flat_in_the_number_of_objects() -> None:
    """At the published size: four times the objects cost at most 5 % more (no time is measured)."""
    cfg = Config.fromfile(CONFIGS / 's3pt/vits16_nuscenes.py', import_custom_modules=False).model
    cfg.pop('type')
    init_default_scope('mmpretrain')
    model = S3PT(**{**cfg, 'queue_images': 16})
    row = scaling.head_memory(model, batch=4, objects=20)
    assert row['ratio'] <= 1.05, row
