"""Images with semantic label maps, read without mmseg: for dense k-NN and the pre-training probe.

The list is the JSON file that ``s3pt-data nuimages`` writes, two folders in Cityscapes'
layout, or any two folders with a class list (docs/own_labels.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from s3pt_mm.common.files import read_file
from s3pt_mm.data.class_lists import class_set as find_class_set
from s3pt_mm.data.class_sets import ClassSet
from s3pt_mm.data.label_maps import folder_pairs, load_list, read_label_map

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
DrawBox = Callable[[int, int], tuple[int, int, int, int]]


def normalised(image: Image.Image) -> Tensor:
    """An RGB image as (3, h, w) float32, ImageNet-normalised."""
    pixels = (np.asarray(image, np.float32) - IMAGENET_MEAN) / np.float32(IMAGENET_STD)
    return torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1).copy())


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
        class_set: What masks' values mean: a name of :data:`CLASS_SETS`, or a class list's file.
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
        self.class_set = find_class_set(class_set)
        self.image_size = tuple(image_size)
        self._last: tuple[int, NDArray[np.uint8]] | None = None

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
        """Read a list that ``s3pt-data nuimages`` wrote.

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
                '`s3pt-data nuimages` writes it.'
            )
        items = load_list(ann_file, find_class_set(class_set))
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
    def from_folders(
        cls,
        images: str | Path,
        masks: str | Path,
        *,
        image_size: tuple[int, int],
        class_set: ClassSet | str,
        mask_suffix: str = '.png',
        max_images: int | None = None,
    ) -> LabelledImages:
        """Read a folder of images and one of masks with the same names; subfolders count.

        Args:
            images: Folder of images.
            masks: Folder of masks: ``b/c.jpg`` of ``images`` has ``b/c`` + ``mask_suffix``.
            image_size: See the class.
            class_set: See the class.
            mask_suffix: End of a mask's name after its image's, e.g. ``_L.png``.
            max_images: See the class.
        """
        pairs = folder_pairs(images, masks, mask_suffix)
        return cls(pairs, class_set=class_set, image_size=image_size, max_images=max_images)

    @classmethod
    def build(cls, **arguments: Any) -> LabelledImages:
        """From a config: with ``root`` :meth:`from_cityscapes`, with ``images`` and ``masks``
        :meth:`from_folders`, else :meth:`from_nuimages`."""
        if 'root' in arguments:
            return cls.from_cityscapes(**arguments)
        return (cls.from_folders if 'images' in arguments else cls.from_nuimages)(**arguments)

    @classmethod
    def from_argument(
        cls, source: str, split: str, *, class_set: ClassSet | str | None = None, **settings: Any
    ) -> LabelledImages:
        """From a command line.

        Args:
            source: A list of nuImages, Cityscapes' folder, or ``IMAGES=MASKS``, two folders.
            split: Of a Cityscapes folder.
            class_set: See the class; None takes ``nuimages13`` or ``cityscapes19``.
            settings: ``image_size`` and ``max_images``.

        Raises:
            ValueError: Two folders without a class set.
        """
        images, equals, masks = source.partition('=')
        if equals and class_set is None:
            raise ValueError(f'{source}: name a class list (--class-set FILE) for own folders.')
        settings |= {} if class_set is None else dict(class_set=class_set)
        if equals:
            return cls.from_folders(images, masks, **settings)
        if Path(source).is_dir():
            return cls.from_cityscapes(source, split, **settings)
        return cls.from_nuimages(source, **settings)

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
        from s3pt_mm.data.transforms.image import EncodedImage  # registers in mmpretrain

        img_path = self.pairs[index][0]
        height, width = self.image_size
        file = EncodedImage(read_file(img_path), img_path)
        across, down = file.size
        left, top, right, bottom = box = (
            draw_box(across, down) if draw_box else (0, 0, across, down)
        )
        # A JPEG may be decoded at half size when that is still no smaller than asked for.
        least = (width * across / (right - left), height * down / (bottom - top))
        most = min(across // np.ceil(least[0]), down // np.ceil(least[1])) if file.is_jpeg else 1
        pixels = file.decode(next(r for r in (8, 4, 2, 1) if r <= max(most, 1)))
        ratio = pixels.shape[1] / across, pixels.shape[0] / down
        decoded = tuple(edge * ratio[axis % 2] for axis, edge in enumerate(box))
        image = Image.fromarray(pixels).resize(
            (width, height), Image.Resampling.BILINEAR, box=decoded
        )
        label_map = self._label_map(index, (down, across))[top:bottom, left:right].copy()
        return LabelledImage(normalised(image), label_map, img_path)

    def _label_map(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        # The last one is kept: crops of an image come one after another, and reading and checking
        # its mask takes longer than its pixels do.
        if self._last is None or self._last[0] != index:
            img_path, seg_path = self.pairs[index]
            read = read_label_map(seg_path, self.class_set, image_size=size, img_path=img_path)
            self._last = index, read
        return self._last[1]
