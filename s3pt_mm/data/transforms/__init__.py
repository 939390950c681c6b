"""Transforms of pre-training; importing it registers them in mmpretrain."""

from s3pt_mm.data.transforms.depth_map import LoadDepthMap
from s3pt_mm.data.transforms.image import EncodedImage, LoadImage
from s3pt_mm.data.transforms.lidar import LoadLidar
from s3pt_mm.data.transforms.packing import PackViews
from s3pt_mm.data.transforms.photometric import Photometric
from s3pt_mm.data.transforms.tokens import TokenGeometry
from s3pt_mm.data.transforms.views import MultiCropViews, TwoViews
from s3pt_mm.data.transforms.whole_image import LoadWholeImage

__all__ = [
    'EncodedImage',
    'LoadDepthMap',
    'LoadImage',
    'LoadLidar',
    'LoadWholeImage',
    'MultiCropViews',
    'PackViews',
    'Photometric',
    'TokenGeometry',
    'TwoViews',
]
