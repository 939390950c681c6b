"""What OpenMMLab's functions cannot do with our configs, and in which words (docs/faq.md): a host's
release that can is a failure here, and the page is then wrong."""

from __future__ import annotations

import importlib.util

import mmengine.hub
import pytest
from mmengine.config import Config


def test_hub_knows_openmmlabs_own_packages_alone() -> None:
    with pytest.raises(AssertionError, match='does not support to load s3pt_mm config'):
        mmengine.hub.get_config('s3pt_mm::s3pt/vits16_nuscenes.py')


@pytest.mark.skipif(importlib.util.find_spec('mmdet3d') is None, reason='no mmdet3d')
@pytest.mark.parametrize(
    'name, message',
    [
        ('MonoDet3DInferencer', 'LoadImageFromFileMono3D is not found'),
        ('MultiModalityDet3DInferencer', 'Both LoadPointsFromFile and LoadImageFromFile must be'),
        ('LidarDet3DInferencer', 'LoadPointsFromFile is not found'),
    ],
)
def test_no_inferencer_of_mmdet3d_takes_six_cameras(repository, name, message) -> None:
    """Each builds its loader from a step that PETR's pipeline, six photos and no points, lacks."""
    from mmdet3d.apis import inferencers

    cfg = Config.fromfile(repository / 'configs/petr/vits16_nuscenes.py')
    inferencer = object.__new__(getattr(inferencers, name))
    with pytest.raises(ValueError, match=message):
        inferencer._init_pipeline(cfg)
