"""Pre-training datasets, transforms and info files; importing it registers them in mmpretrain."""

from . import transforms  # noqa: F401
from .errors import DataError
from .image_folder import ImageFolderDataset
from .info_file import load_info_file, write_info_file
from .nuscenes_images import NuScenesImages

__all__ = ['DataError', 'ImageFolderDataset', 'NuScenesImages', 'load_info_file', 'write_info_file']
