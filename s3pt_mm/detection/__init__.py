"""3D detection on mmdet3d: PETR with a frozen ViT, its data, its evaluation."""

from __future__ import annotations

import s3pt_mm.weights.timm_vit  # noqa: F401  registers the frozen backbones
from s3pt_mm.detection.data.camera_order import CameraOrderHook
from s3pt_mm.detection.data.loading import LoadSurroundImages
from s3pt_mm.detection.data.nuscenes_dataset import SurroundNuScenesDataset
from s3pt_mm.detection.data.transforms import MultiViewGlobalRotScale, MultiViewResizeCropFlip
from s3pt_mm.detection.metrics.range_metric import NuScenesRangeMetric
from s3pt_mm.detection.metrics.split_check import SplitCheckHook
from s3pt_mm.detection.metrics.subset_metric import NuScenesSubsetMetric
from s3pt_mm.detection.petr.assigner import S3PTBox3DL1Cost, S3PTHungarianAssigner3D
from s3pt_mm.detection.petr.box_coder import S3PTNMSFreeCoder
from s3pt_mm.detection.petr.cp_fpn import S3PTCPFPN
from s3pt_mm.detection.petr.decoder import S3PTPETRDecoder
from s3pt_mm.detection.petr.detector import S3PTPETR
from s3pt_mm.detection.petr.grid_mask import GridMask
from s3pt_mm.detection.petr.petr_head import S3PTPETRHead
from s3pt_mm.detection.petr.schedule import S3PTCyclicLR, S3PTCyclicMomentum
from s3pt_mm.detection.petr.vovnet import S3PTVoVNet
from s3pt_mm.detection.pictures.visualization import SurroundVisualizationHook, SurroundVisualizer

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
    'SplitCheckHook',
    'SurroundNuScenesDataset',
    'SurroundVisualizationHook',
    'SurroundVisualizer',
]
