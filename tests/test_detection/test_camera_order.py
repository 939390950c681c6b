"""A checkpoint of other cameras, or another order of them, is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mmdet3d.registry import HOOKS

from s3pt_mm.detection.data.camera_order import CameraOrderHook
from s3pt_mm.detection.data.loading import NUSCENES_CAMERAS


def _runner(cameras: list[str] | None, loop: str = '_test_loop') -> SimpleNamespace:
    metainfo = {} if cameras is None else {'cameras': cameras}
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    return SimpleNamespace(**{loop: SimpleNamespace(dataloader=loader), '_val_loop': None})


def _checkpoint(cameras: list[str]) -> dict:
    return {'meta': {'dataset_meta': {'cameras': cameras}}}


@pytest.mark.parametrize('loop', ['_train_loop', '_test_loop'])
def test_other_order_is_an_error_that_shows_both(loop: str) -> None:
    hook = HOOKS.build({'type': 'CameraOrderHook'})
    assert isinstance(hook, CameraOrderHook)
    hook.after_load_checkpoint(_runner(['A', 'B'], loop), _checkpoint(['A', 'B']))
    with pytest.raises(ValueError, match=r"cameras \['B', 'A'\].*trained with \['A', 'B'\]"):
        hook.after_load_checkpoint(_runner(['B', 'A'], loop), _checkpoint(['A', 'B']))
    with pytest.raises(ValueError, match='set `cameras` of LoadSurroundImages'):
        hook.after_load_checkpoint(_runner(['A'], loop), _checkpoint(['A', 'B']))


def test_a_checkpoint_without_record_has_mmdet3ds_order() -> None:
    hook = CameraOrderHook()
    hook.after_load_checkpoint(_runner(list(NUSCENES_CAMERAS)), {'state_dict': {}})
    with pytest.raises(ValueError, match='CAM_FRONT'):
        hook.after_load_checkpoint(_runner(list(reversed(NUSCENES_CAMERAS))), {'meta': {}})


def test_data_without_cameras_is_not_judged() -> None:
    CameraOrderHook().after_load_checkpoint(_runner(None), _checkpoint(['A']))
