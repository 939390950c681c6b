"""Any folder of images, without LiDAR."""

from __future__ import annotations

import logging
import os.path as osp
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmengine.logging import print_log
from mmpretrain.registry import DATASETS

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import read_file
from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset
from s3pt_mm.data.image_files import (
    SUFFIXES,
    FoundImages,
    choose,
    find_images,
    looks_like_mask,
    mask_candidates,
    mask_patterns,
)
from s3pt_mm.data.transforms.image import EncodedImage


@DATASETS.register_module()
class ImageFolderDataset(PretrainDataset):
    """All images below a folder in sorted order, or those of a list in the list's order.

    Items are those of ``NuScenesImages`` without calibration and LiDAR; they may have depth maps.
    Photos are turned as their EXIF data says. What is left out is said once, and so is a folder
    whose files look like label masks.

    Args:
        data_root: the folder; searched recursively, links to files and folders included, each
            folder once.
        ann_file: a text file with one path a line, relative to ``data_root`` or absolute, in place
            of the search; an image may stand in it twice. Default: none.
        include: glob patterns of paths below ``data_root``, see
            :func:`~s3pt_mm.data.image_files.find_images`. Default: all.
        exclude: patterns of what to leave out of them, e.g. ``['*_L.png', 'masks/*']``.
        suffixes: file name endings that count as images, lower case.
        hidden: also what lies in hidden and generated folders (``.thumbnails``, ``@eaDir``).
        depth_map: where an image's depth map lies, for ``LoadDepthMap``: a path, relative to
            ``data_root`` or absolute, with ``{path}`` for the image's path below ``data_root``
            without its ending, e.g. ``'/data/depth/{path}.png'``. Default: there are none.
        **kwargs: see :class:`PretrainDataset`.

    Raises:
        ValueError: for a ``depth_map`` without ``{path}``.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'image_folder'}

    def __init__(
        self,
        *,
        data_root: str = '',
        ann_file: str = '',
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        suffixes: tuple[str, ...] = SUFFIXES,
        hidden: bool = False,
        depth_map: str | None = None,
        **kwargs: Any,
    ) -> None:
        if depth_map is not None and '{path}' not in depth_map:
            raise ValueError(f"depth_map needs '{{path}}' for the image, got {depth_map!r}")
        self.depth_map = depth_map
        self.patterns = dict(include=include, exclude=exclude)
        self.suffixes = tuple(suffix.lower() for suffix in suffixes)
        self.hidden = hidden
        super().__init__(
            ann_file=osp.expanduser(ann_file),
            data_root=osp.expanduser(data_root),
            data_prefix={},
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Items of the data set, paths and numbers only."""
        if self.ann_file:
            found = FoundImages()
            found.paths = choose(_read_list(self.ann_file), **self.patterns, found=found)
        elif not osp.isdir(self.data_root):
            raise DataError(
                self.data_root, 'no such folder', 'Set train_dataloader.dataset.data_root'
            )
        else:
            found = find_images(
                self.data_root, **self.patterns, suffixes=self.suffixes, hidden=self.hidden
            )
        if found.left_out or found.unused:
            print_log(f'{self.ann_file or self.data_root}: {found}', 'current')
        self._warn_of_masks(found.paths)
        return [self._item(path) for path in found.paths]

    def _item(self, below: str) -> dict[str, Any]:
        item = {
            'img_path': osp.join(self.data_root, below),
            'token': below,
            'cam': '',
            'upright': True,
        }
        if self.depth_map is not None:
            named = self.depth_map.replace('{path}', osp.splitext(below)[0])
            item['depth_map'] = osp.join(self.data_root, osp.expanduser(named))
        return item

    def _warn_of_masks(self, paths: Sequence[str]) -> None:
        groups = mask_candidates(paths)
        masks = [path for path in groups if self._is_mask(path)]
        members = {path for mask in masks for path in groups[mask]}
        if members:
            patterns = mask_patterns(members, set(paths) - members)
            print_log(
                f'{self.data_root}: about {len(members)} of {len(paths)} images look like label '
                f'masks, e.g. {masks[0]}; train without them: exclude={patterns}',
                'current',
                logging.WARNING,
            )

    def _is_mask(self, below: str) -> bool:
        path = Path(self.data_root, below)
        try:
            image = EncodedImage(read_file(path), str(path))
            return not image.is_jpeg and looks_like_mask(image.decode())
        except (DataError, OSError):
            return False  # the loader will say so


def _read_list(path: str) -> list[str]:
    """Paths of a text file, one a line, as they stand there.

    Raises:
        DataError: the file is missing or no text.
    """
    try:
        text = Path(path).read_text(encoding='utf-8-sig', errors='surrogateescape')
    except OSError as error:
        raise DataError(path, str(error.strerror), 'ann_file is a list of images') from error
    if '\0' in text:
        raise DataError(path, 'is no text', 'ann_file is a list of images, one path a line')
    return [line for line in text.split('\n') if line.strip()]
