"""Semantic segmentation with a frozen backbone, on mmseg. Import through ``custom_imports``."""

from s3pt_mm.hosts import compat
from s3pt_mm.segmentation.datasets import (
    ACDCSegDataset,
    FoggyCityscapesDataset,
    FoggyDrivingDataset,
    NuImagesDataset,
)
from s3pt_mm.segmentation.heads import LinearSegHead, MaskTransformerSegHead
from s3pt_mm.segmentation.hooks import ClassCheckHook
from s3pt_mm.segmentation.metrics import SegmentationMetric
from s3pt_mm.segmentation.schedule import PolyLRToFraction
from s3pt_mm.segmentation.transforms import LoadSegmentationLabels
from s3pt_mm.weights import frozen, timm_vit

__all__ = [
    'ACDCSegDataset', 'ClassCheckHook', 'FoggyCityscapesDataset', 'FoggyDrivingDataset',
    'LinearSegHead', 'LoadSegmentationLabels', 'MaskTransformerSegHead', 'NuImagesDataset',
    'PolyLRToFraction', 'SegmentationMetric', 'compat', 'frozen', 'timm_vit',
]  # fmt: skip
