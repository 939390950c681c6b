"""Images with semantic label maps, read without mmseg: for dense k-NN and the pre-training probe.

The list is the JSON file that ``tools/create_data.py nuimages`` writes, or two folders in
Cityscapes' layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from s3pt_mm.data.class_sets import CLASS_SETS, ClassSet

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
DrawBox = Callable[[int, int], tuple[int, int, int, int]]


class LabelError(ValueError):
    """A mask file that is missing, of another size than its image, or with a value out of range."""


def apply_class_set(raw: NDArray, class_set: ClassSet, *, path: str | Path) -> NDArray[np.uint8]:
    """Turn the values of a mask file into training labels.

    Args:
        raw: (H, W) integers, as stored.
        class_set: What they mean.
        path: File name, for the message.

    Returns:
        (H, W) labels, 255 where ignored.

    Raises:
        LabelError: A value that the class set does not know.
    """
    if raw.ndim != 2:
        raise LabelError(
            f'Mask {path} has shape {raw.shape}; a mask has one channel (H, W) of class ids.'
        )
    table = class_set.lookup_table()
    fits = raw.dtype == np.uint8 or (0 <= raw.min() and raw.max() <= 255)
    # Every training image passes here, so the gathers are OpenCV's: a tenth of NumPy's time.
    bytes_ = raw.astype(np.uint8, copy=False)
    if not fits or cv2.LUT(bytes_, (table < 0).astype(np.uint8)).any():
        known = set(class_set.raw_to_label)
        unknown = sorted(set(np.unique(raw).tolist()) - known)
        raise LabelError(
            f'Mask {path} holds the label {unknown[0]} (of {unknown[:8]}), out of range: '
            f'{class_set.name} knows {sorted(known)}. Is the file of another data set or version?'
        )
    return cv2.LUT(bytes_, table.astype(np.uint8))


def read_label_map(
    path: str | Path, class_set: ClassSet, *, image_size: tuple[int, int], img_path: str | Path
) -> NDArray[np.uint8]:
    """Read one mask file and check it.

    Args:
        path: The mask, an 8-bit PNG (palette or grey).
        class_set: What its values mean.
        image_size: (height, width) of the image the mask belongs to, in pixels.
        img_path: That image's file, for the messages.

    Returns:
        (H, W) training labels, 255 where ignored.

    Raises:
        LabelError: Missing file, another size than the image, or a value out of range.
    """
    if not Path(path).is_file():
        raise LabelError(
            f'Mask {path} of image {img_path} is missing. Make the masks with '
            '`tools/create_data.py nuimages` (nuImages) or cityscapesscripts (Cityscapes).'
        )
    with Image.open(path) as file:
        raw = np.asarray(file)
    if raw.shape[:2] != tuple(image_size):
        raise LabelError(
            f'Mask {path} is {raw.shape[1]} x {raw.shape[0]} pixels, its image {img_path} '
            f'{image_size[1]} x {image_size[0]}.'
        )
    return apply_class_set(raw, class_set, path=path)


@dataclass(frozen=True)
class LabelledImage:
    """One image with its labels.

    Attributes:
        image: (3, h, w) float32, RGB, ImageNet-normalised, at the size asked for.
        label_map: (H, W) uint8 at the *file's* resolution, 255 where ignored.
        img_path: Image file.
    """

    image: Tensor
    label_map: NDArray[np.uint8]
    img_path: str


class LabelledImages(torch.utils.data.Dataset):
    """A list of images and masks as a torch dataset.

    Args:
        pairs: (image path, mask path) of each item.
        class_set: What the masks' values mean.
        image_size: (height, width) that images are resized to (bilinear, antialiased); multiples
            of the patch. Label maps keep their own resolution.
        max_images: Use this many, spread evenly over the list; None uses all.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str | Path, str | Path]],
        *,
        class_set: ClassSet | str,
        image_size: tuple[int, int],
        max_images: int | None = None,
    ) -> None:
        if not pairs:
            raise ValueError('LabelledImages got an empty list of images.')
        if max_images is not None and max_images < len(pairs):
            chosen = np.linspace(0, len(pairs) - 1, max_images).round().astype(int)
            pairs = [pairs[index] for index in chosen]
        self.pairs = [(str(image), str(mask)) for image, mask in pairs]
        self.class_set = CLASS_SETS[class_set] if isinstance(class_set, str) else class_set
        self.image_size = tuple(image_size)

    @classmethod
    def from_nuimages(
        cls,
        ann_file: str | Path,
        *,
        image_size: tuple[int, int],
        image_root: str | Path | None = None,
        mask_root: str | Path | None = None,
        class_set: ClassSet | str = 'nuimages13',
        max_images: int | None = None,
    ) -> LabelledImages:
        """Read a list that ``tools/create_data.py nuimages`` wrote.

        Args:
            ann_file: ``nuimages_train.json``, ``nuimages_val.json`` or a random split's.
            image_size: See the class.
            image_root: Folder of nuImages; default: the list's own folder.
            mask_root: Folder the masks were written to; default: the list's own folder.
            class_set: See the class.
            max_images: See the class.
        """
        ann_file = Path(ann_file)
        if not ann_file.is_file():
            raise FileNotFoundError(
                f'List of labelled images {ann_file} does not exist; '
                '`tools/create_data.py nuimages` writes it.'
            )
        items = json.loads(ann_file.read_text())['data_list']
        images, masks = Path(image_root or ann_file.parent), Path(mask_root or ann_file.parent)
        pairs = [(images / item['img_path'], masks / item['seg_map_path']) for item in items]
        return cls(pairs, class_set=class_set, image_size=image_size, max_images=max_images)

    @classmethod
    def from_cityscapes(
        cls,
        root: str | Path,
        split: str,
        *,
        image_size: tuple[int, int],
        class_set: ClassSet | str = 'cityscapes19',
        max_images: int | None = None,
    ) -> LabelledImages:
        """Read ``leftImg8bit/<split>`` and ``gtFine/<split>`` (``labelTrainIds`` files).

        Args:
            root: Folder of Cityscapes.
            split: ``train``, ``val`` or ``test``.
            image_size: See the class.
            class_set: One whose raw values are Cityscapes' training numbers.
            max_images: See the class.
        """
        images = sorted((Path(root) / 'leftImg8bit' / split).rglob('*_leftImg8bit.png'))
        if not images:
            raise FileNotFoundError(f'No *_leftImg8bit.png under {root}/leftImg8bit/{split}.')
        ends = ('_leftImg8bit.png', '_gtFine_labelTrainIds.png')
        labels = Path(root) / 'gtFine' / split
        pairs = [(p, labels / p.parent.name / p.name.replace(*ends)) for p in images]
        return cls(pairs, class_set=class_set, image_size=image_size, max_images=max_images)

    @classmethod
    def build(cls, **arguments: Any) -> LabelledImages:
        """From a config: with ``root``, :meth:`from_cityscapes`; else :meth:`from_nuimages`."""
        return (cls.from_cityscapes if 'root' in arguments else cls.from_nuimages)(**arguments)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> LabelledImage:
        return self.read(index)

    def read(self, index: int, draw_box: DrawBox | None = None) -> LabelledImage:
        """One image and its labels, or a crop of both.

        Args:
            index: Which one.
            draw_box: From the file's (width, height) to the crop's (left, top, right, bottom) in
                its pixels; None takes the whole image.
        """
        img_path, seg_path = self.pairs[index]
        height, width = self.image_size
        with Image.open(img_path) as file:
            size = (file.height, file.width)
            left, top, right, bottom = box = (
                draw_box(file.width, file.height) if draw_box else (0, 0, file.width, file.height)
            )
            # A JPEG may be decoded at half size when that is still no smaller than asked for.
            least = (width * file.width / (right - left), height * file.height / (bottom - top))
            file.draft('RGB', tuple(int(np.ceil(side)) for side in least))
            ratio = file.width / size[1], file.height / size[0]
            decoded = tuple(edge * ratio[axis % 2] for axis, edge in enumerate(box))
            image = file.convert('RGB').resize(
                (width, height), Image.Resampling.BILINEAR, box=decoded
            )
        pixels = (np.asarray(image, np.float32) - IMAGENET_MEAN) / np.float32(IMAGENET_STD)
        label_map = read_label_map(seg_path, self.class_set, image_size=size, img_path=img_path)
        tensor = torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1).copy())
        return LabelledImage(tensor, label_map[top:bottom, left:right], img_path)
