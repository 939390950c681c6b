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

    Items are those of ``NuScenesImages`` without calibration and LiDAR; they may have depth maps.

    Args:
        data_root: the folder; searched recursively, links to folders included.
        suffixes: file name endings that count as images, lower case.
        depth_map: where an image's depth map lies, for ``LoadDepthMap``: a path, relative to
            ``data_root`` or absolute, with ``{path}`` for the image's path below ``data_root``
            without its ending, e.g. ``'/data/depth/{path}.png'``. Default: there are none.
        **kwargs: see :class:`PretrainDataset`. ``ann_file`` must stay empty.

    Raises:
        ValueError: for a ``depth_map`` without ``{path}``.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'image_folder'}

    def __init__(
        self,
        *,
        data_root: str,
        suffixes: tuple[str, ...] = SUFFIXES,
        depth_map: str | None = None,
        **kwargs: Any,
    ) -> None:
        if depth_map is not None and '{path}' not in depth_map:
            raise ValueError(f"depth_map needs '{{path}}' for the image, got {depth_map!r}")
        self.depth_map = depth_map
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
        return [self._item(path) for path in sorted(paths)]

    def _item(self, path: str) -> dict[str, str]:
        below = osp.relpath(path, self.data_root)
        item = {'img_path': path, 'token': below, 'cam': ''}
        if self.depth_map is not None:
            named = self.depth_map.replace('{path}', osp.splitext(below)[0])
            item['depth_map'] = osp.join(self.data_root, osp.expanduser(named))
        return item
