"""Loading of label maps with checks that name the file."""

from __future__ import annotations

import functools
from typing import Any

from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from s3pt_mm.data.class_lists import class_set
from s3pt_mm.data.label_maps import read_label_map
from s3pt_mm.data.transforms.whole_image import LoadWholeImage

_class_set = functools.cache(class_set)  # a file is read once a process, not once an image


TRANSFORMS.register_module(name='LoadImageFromFile', module=LoadWholeImage)


@TRANSFORMS.register_module()
class LoadSegmentationLabels(BaseTransform):
    """Reads a mask file, checks it against its image and turns raw values into labels.

    Takes mmseg's ``LoadAnnotations``' place: that one reads any number, of any size. Required keys:
    ``seg_map_path``, ``img_path``, ``ori_shape`` (so an image loader comes first). Added:
    ``gt_seg_map`` (H, W) uint8, 255 where ignored, and its name in ``seg_fields``. Without
    ``seg_map_path`` nothing is added: so mmseg's inferencers run a test pipeline on one image.

    Args:
        class_set: Name of a class set, or a class list's file; None takes the data set's
            (``results['class_set']``), and Cityscapes' 19 classes where it names none.
    """

    def __init__(self, class_set: str | None = None) -> None:
        self.class_set = class_set

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load ``gt_seg_map``.

        Raises:
            LabelError: Missing mask, size unlike the image's, or a value out of range.
        """
        if 'seg_map_path' not in results:
            return results
        name = self.class_set or results.get('class_set') or 'cityscapes19'
        results['gt_seg_map'] = read_label_map(
            results['seg_map_path'],
            _class_set(name),
            image_size=tuple(results['ori_shape'][:2]),
            img_path=results['img_path'],
        )
        results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(class_set={self.class_set!r})'
