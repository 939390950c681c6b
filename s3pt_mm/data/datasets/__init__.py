"""Pre-training datasets, transforms and info files; importing it registers them in mmpretrain."""

from s3pt_mm.common.errors import DataError
from s3pt_mm.data import transforms  # noqa: F401
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages

__all__ = ['DataError', 'ImageFolderDataset', 'NuScenesImages', 'load_info_file', 'write_info_file']
