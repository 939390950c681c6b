"""Segmentation data sets that mmseg does not have."""

from __future__ import annotations

import os.path as osp
from typing import Any, ClassVar

from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.registry import DATASETS

from s3pt_mm.data.class_lists import class_set as find_class_set
from s3pt_mm.data.label_maps import folder_pairs, load_list

_PREFIXES = frozenset(('img_path', 'seg_map_path'))


@DATASETS.register_module()
class NuImagesDataset(BaseSegDataset):
    """nuImages with the masks and lists of ``s3pt-data nuimages``.

    Use ``LoadSegmentationLabels`` in the pipeline: mask files hold the devkit's ids, which only it
    turns into labels. Class 0 is a class, so ``reduce_zero_label`` stays False.

    Args:
        class_set: ``nuimages13`` (the ten detection classes, driveable surface, ego vehicle,
            background; choice of this package), ``nuimages25`` (every category), or a class list's
            file (docs/own_labels.md).
        ann_file: ``nuimages_train.json`` and the like; relative to ``data_root``.
        data_prefix: ``img_path`` and ``seg_map_path``: folders of images and masks, relative to
            ``data_root``; the default is right when masks were written into the nuImages folder.
        kwargs: See mmseg's ``BaseSegDataset``.
    """

    PREFIXES: ClassVar[frozenset[str]] = _PREFIXES

    def __init__(
        self,
        *,
        ann_file: str,
        class_set: str = 'nuimages13',
        data_prefix: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.class_set = class_set  # not metainfo, which replaces a file's name by its lines
        super().__init__(
            ann_file=ann_file,
            metainfo=_metainfo(class_set),
            data_prefix=data_prefix or dict(img_path='', seg_map_path=''),
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Items of the list file, with absolute paths.

        Raises:
            FileNotFoundError: There is no list.
        """
        if not osp.isfile(self.ann_file):
            raise FileNotFoundError(
                f'{self.ann_file} does not exist; write it with `s3pt-data nuimages '
                f'--root {self.data_root or "ROOT"}`.'
            )
        items = load_list(self.ann_file, find_class_set(self.class_set))
        images = self.data_prefix.get('img_path') or ''
        masks = self.data_prefix.get('seg_map_path') or ''
        return [
            _item(
                osp.join(images, item['img_path']),
                osp.join(masks, item['seg_map_path']),
                self.class_set,
            )
            for item in items
        ]


@DATASETS.register_module()
class FolderSegDataset(BaseSegDataset):
    """Any folder of images and masks with a class list (docs/own_labels.md).

    Use ``LoadSegmentationLabels`` in the pipeline.

    Args:
        class_set: Class list's file, relative to ``data_root`` or the working directory, or a
            shipped class set's name.
        data_prefix: ``img_path`` and ``seg_map_path``: folders of images and of masks with the same
            names, relative to ``data_root``.
        seg_map_suffix: End of a mask's name, after its image's.
        kwargs: See mmseg's ``BaseSegDataset``.
    """

    PREFIXES: ClassVar[frozenset[str]] = _PREFIXES

    def __init__(
        self,
        *,
        class_set: str,
        data_prefix: dict[str, str],
        seg_map_suffix: str = '.png',
        data_root: str = '',
        **kwargs: Any,
    ) -> None:
        beside = osp.join(data_root, class_set)
        self.class_set = beside if osp.isfile(beside) else class_set
        super().__init__(
            metainfo=_metainfo(self.class_set),
            data_root=data_root,
            data_prefix=data_prefix,
            seg_map_suffix=seg_map_suffix,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images in sorted order with their masks.

        Raises:
            DataError: There is no image.
        """
        prefix = self.data_prefix
        pairs = folder_pairs(prefix['img_path'], prefix['seg_map_path'], self.seg_map_suffix)
        return [_item(str(i), str(m), self.class_set) for i, m in pairs]


def _metainfo(class_set: str) -> dict[str, Any]:
    chosen = find_class_set(class_set)
    palette = [list(colour) for colour in chosen.palette]
    return dict(classes=chosen.classes, palette=palette)


def _item(img_path: str, seg_map_path: str, class_set: str) -> dict[str, Any]:
    return dict(
        img_path=img_path,
        seg_map_path=seg_map_path,
        class_set=class_set,
        label_map=None,
        reduce_zero_label=False,
        seg_fields=[],
    )


@DATASETS.register_module()
class ACDCSegDataset(CityscapesDataset):
    """ACDC (arXiv 2104.13395): ``rgb_anon/<condition>/<split>`` and ``gt/<condition>/<split>``."""

    def __init__(
        self,
        img_suffix: str = '_rgb_anon.png',
        seg_map_suffix: str = '_gt_labelTrainIds.png',
        **kwargs: Any,
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class FoggyCityscapesDataset(CityscapesDataset):
    """Foggy Cityscapes (arXiv 1708.07819): ``leftImg8bit_foggyDBF`` with Cityscapes' own labels.

    Args:
        beta: Attenuation coefficient in 1/m, as in the file names: 0.005, 0.01 or 0.02.
        kwargs: See mmseg's ``CityscapesDataset``.
    """

    def __init__(self, beta: float = 0.02, **kwargs: Any) -> None:
        super().__init__(img_suffix=f'_leftImg8bit_foggy_beta_{beta}.png', **kwargs)


@DATASETS.register_module()
class FoggyDrivingDataset(CityscapesDataset):
    """Foggy Driving (arXiv 1708.07819): ``leftImg8bit/public`` with its own coarse or fine
    labels."""

    def __init__(self, seg_map_suffix: str = '_gtCoarse_labelTrainIds.png', **kwargs: Any) -> None:
        super().__init__(seg_map_suffix=seg_map_suffix, **kwargs)
