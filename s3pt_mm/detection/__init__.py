"""3D detection on mmdet3d: PETR with a frozen ViT, its data, its evaluation."""

from __future__ import annotations

import s3pt_mm.frozen  # noqa: F401  registers the frozen backbones

from .assigner import S3PTBox3DL1Cost, S3PTHungarianAssigner3D
from .box_coder import S3PTNMSFreeCoder
from .camera_order import CameraOrderHook
from .cp_fpn import S3PTCPFPN
from .decoder import S3PTPETRDecoder
from .grid_mask import GridMask
from .loading import LoadSurroundImages
from .nuscenes_dataset import SurroundNuScenesDataset
from .petr import S3PTPETR
from .petr_head import S3PTPETRHead
from .range_metric import NuScenesRangeMetric
from .schedule import S3PTCyclicLR, S3PTCyclicMomentum
from .subset_metric import NuScenesSubsetMetric
from .transforms import MultiViewGlobalRotScale, MultiViewResizeCropFlip
from .visualization import SurroundVisualizationHook, SurroundVisualizer
from .vovnet import S3PTVoVNet

__all__ = [
    'S3PTCPFPN',
    'S3PTPETR',
    'CameraOrderHook',
    'GridMask',
    'LoadSurroundImages',
    'MultiViewGlobalRotScale',
    'MultiViewResizeCropFlip',
    'NuScenesRangeMetric',
    'NuScenesSubsetMetric',
    'S3PTBox3DL1Cost',
    'S3PTCyclicLR',
    'S3PTCyclicMomentum',
    'S3PTHungarianAssigner3D',
    'S3PTNMSFreeCoder',
    'S3PTPETRDecoder',
    'S3PTPETRHead',
    'S3PTVoVNet',
    'SurroundNuScenesDataset',
    'SurroundVisualizationHook',
    'SurroundVisualizer',
]
