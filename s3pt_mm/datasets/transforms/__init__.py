"""Transforms of pre-training.

Importing it registers them in mmpretrain (``SeedFromIndex``: for every library).
"""

from .image import EncodedImage, LoadImage
from .lidar import LoadLidar
from .packing import PackViews
from .photometric import Photometric
from .seeding import SeedFromIndex
from .tokens import TokenGeometry
from .views import MultiCropViews, TwoViews

__all__ = [
    'EncodedImage',
    'LoadImage',
    'LoadLidar',
    'MultiCropViews',
    'PackViews',
    'Photometric',
    'SeedFromIndex',
    'TokenGeometry',
    'TwoViews',
]
