"""Any folder of images, without LiDAR."""

from __future__ import annotations

import os
import os.path as osp
from typing import Any, ClassVar

from mmpretrain.registry import DATASETS

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm')


@DATASETS.register_module()
class ImageFolderDataset(PretrainDataset):
    """All images below a folder, in sorted order.

    Items are those of ``NuScenesImages`` without calibration and LiDAR.

    Args:
        data_root: the folder; searched recursively, links to folders included.
        suffixes: file name endings that count as images, lower case.
        **kwargs: see :class:`PretrainDataset`. ``ann_file`` must stay empty.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'image_folder'}

    def __init__(
        self, *, data_root: str, suffixes: tuple[str, ...] = SUFFIXES, **kwargs: Any
    ) -> None:
        self.suffixes = tuple(suffix.lower() for suffix in suffixes)
        super().__init__(ann_file='', data_root=osp.expanduser(data_root), data_prefix={}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Items of the data set, paths and numbers only."""
        if not osp.isdir(self.data_root):
            raise DataError(
                self.data_root, 'no such folder', 'Set train_dataloader.dataset.data_root'
            )
        paths: list[str] = []
        visited: set[str] = set()
        for folder, subfolders, names in os.walk(self.data_root, followlinks=True):
            real = osp.realpath(folder)
            if real in visited:  # a link to a parent would never end
                subfolders.clear()
                continue
            visited.add(real)
            paths += [
                osp.join(folder, name)
                for name in names
                if name.lower().endswith(self.suffixes) and not name.startswith('.')
            ]
        return [
            {'img_path': path, 'token': osp.relpath(path, self.data_root), 'cam': ''}
            for path in sorted(paths)
        ]
