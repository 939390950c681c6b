"""What holds for every shipped config as a file, and for a child that someone writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2] / 'configs'
LEAVES = sorted(path for path in ROOT.rglob('*.py') if '_base_' not in path.parts)


def load(path: Path) -> Config:
    return Config.fromfile(path, import_custom_modules=False)


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(ROOT)))
def test_loads_and_keeps_its_own_hooks_out_of_the_list(path: Path) -> None:
    """``custom_hooks`` is the user's: a child that sets it replaces it as a whole."""
    assert not load(path).get('custom_hooks')


@pytest.mark.parametrize(
    'name', ['s3pt/vits16_nuscenes', 's3pt/vitb16_nuscenes', 'dino/vits16_nuscenes']
)
def test_a_child_with_hooks_of_its_own_keeps_the_methods(name: str, tmp_path: Path) -> None:
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = ['{ROOT / name}.py']\ncustom_hooks = [dict(type='EMAHook')]\n")
    cfg = load(child)
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook']
    types = {key: hook.type for key, hook in cfg.default_hooks.items()}
    assert types['teacher_update'] == 'TeacherUpdateHook'
    assert types['method_schedule'] == 'MethodScheduleHook'
    assert types['last_layer_freeze'] == 'LastLayerFreezeHook'
    assert types['divergence'] == 'DivergenceHook'


def test_a_list_edited_in_a_child_does_not_reach_its_parent() -> None:
    """mmengine hands out the base's own objects: a second load must not see the first's edits."""
    edited, base = load(ROOT / 's3pt/vitb16_nuscenes.py'), load(ROOT / 's3pt/vits16_nuscenes.py')
    assert edited.train_dataloader.dataset.pipeline[3].scale == (0.32, 1.0)
    assert base.train_dataloader.dataset.pipeline[3].scale == (0.25, 1.0)
    assert (edited.param_scheduler[1].eta_min, base.param_scheduler[1].eta_min) == (2e-6, 1e-5)
