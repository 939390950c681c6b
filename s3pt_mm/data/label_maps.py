"""Files of labels: which mask belongs to which image, and what its values mean."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s3pt_mm.common.errors import DataError, fields_of
from s3pt_mm.data.class_sets import IGNORE, ClassSet
from s3pt_mm.data.image_files import SUFFIXES, find_images

_UNKNOWN = 254  # no class list is so long


class LabelError(ValueError):
    """A mask file that is missing, of another size than its image, or with a value out of range."""


def apply_class_set(raw: NDArray, class_set: ClassSet, *, path: str | Path) -> NDArray[np.uint8]:
    """Turn the values of a mask file into training labels.

    Args:
        raw: (H, W) integers, as stored, or (H, W, 3) colours; a fourth channel does not count.
        class_set: What they mean.
        path: File name, for the message.

    Returns:
        (H, W) labels, 255 where ignored.

    Raises:
        LabelError: A value or colour that the class set does not know.
    """
    if raw.ndim == 3 and raw.shape[2] in (3, 4) and raw.dtype == np.uint8:
        return _labels_of_colours(raw[..., :3], class_set, path)
    if raw.ndim != 2:
        raise LabelError(
            f'Mask {path} has shape {raw.shape} of {raw.dtype}; a mask has one channel (H, W) of '
            'class ids, or three of colours.'
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
            f'{class_set.name} knows {sorted(known)}, its classes are '
            f'{", ".join(class_set.classes)}. Is the file of another data set or version?'
        )
    return cv2.LUT(bytes_, table.astype(np.uint8))


def _labels_of_colours(
    raw: NDArray[np.uint8], class_set: ClassSet, path: str | Path
) -> NDArray[np.uint8]:
    table = _colour_table(class_set.palette, class_set.ignored_colours)
    codes = raw.astype(np.uint32)
    codes = codes[..., 0] << 16 | codes[..., 1] << 8 | codes[..., 2]
    labels = table[codes]
    unknown = np.unique(codes[labels == _UNKNOWN])
    if unknown.size:
        code = int(unknown[0])
        colours = ', '.join(
            f'{name} {list(colour)}'
            for name, colour in zip(class_set.classes, class_set.palette, strict=True)
        )
        raise LabelError(
            f'Mask {path} holds the colour {[code >> 16, code >> 8 & 255, code & 255]} (and '
            f'{unknown.size - 1} others) that no class of {class_set.name} has: {colours}; '
            f"ignored {[list(c) for c in class_set.ignored_colours]}. Add it to 'ignore' or to a "
            "class's colour (docs/own_labels.md)."
        )
    return labels


@functools.lru_cache(maxsize=4)
def _colour_table(
    palette: tuple[tuple[int, int, int], ...], ignored: tuple[tuple[int, int, int], ...]
) -> NDArray[np.uint8]:
    """Label of each of 2 ** 24 colours."""
    if len({*palette, *ignored}) < len(palette) + len(ignored):
        raise LabelError('Two classes, or a class and an ignored colour, share a colour.')
    table = np.full(2**24, _UNKNOWN, np.uint8)
    for label, colours in [*enumerate([c] for c in palette), (IGNORE, ignored)]:
        for red, green, blue in colours:
            table[red << 16 | green << 8 | blue] = label
    return table


def read_label_map(
    path: str | Path, class_set: ClassSet, *, image_size: tuple[int, int], img_path: str | Path
) -> NDArray[np.uint8]:
    """Read one mask file and check it.

    Args:
        path: The mask, an 8-bit PNG: ids (palette or grey), or colours.
        class_set: What its values mean.
        image_size: (height, width) of the image the mask belongs to, in pixels.
        img_path: That image's file, for the messages.

    Returns:
        (H, W) training labels, 255 where ignored.

    Raises:
        LabelError: Missing or torn file, another size than the image, or a value out of range.
    """
    if not Path(path).is_file():
        raise LabelError(
            f'Mask {path} of image {img_path} is missing. Make the masks with '
            '`s3pt-data nuimages` (nuImages) or cityscapesscripts (Cityscapes); masks '
            'of your own are called as their images (docs/own_labels.md).'
        )
    try:
        with Image.open(path) as file:
            raw = np.asarray(file)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, of damaged files
        raise LabelError(
            f'Mask {path} of image {img_path} cannot be read ({error}). Copy or draw it again.'
        ) from error
    if raw.shape[:2] != tuple(image_size):
        raise LabelError(
            f'Mask {path} is {raw.shape[1]} x {raw.shape[0]} pixels, its image {img_path} '
            f'{image_size[1]} x {image_size[0]}.'
        )
    return apply_class_set(raw, class_set, path=path)


def load_list(path: str | Path, class_set: ClassSet) -> list[dict[str, str]]:
    """Items of a list file in the format of ``s3pt-data nuimages``.

    Raises:
        DataError: The file is torn, or lacks a field.
        LabelError: A class set of nuImages for a list that this command did not write: other data
            sets' values would count as nuImages' categories without a word.
    """
    with fields_of(path, 'Write it again with s3pt-data nuimages'):
        content = json.loads(Path(path).read_text())
        is_ours = 'raw_ids' in content.get('metainfo', {})
        items = content['data_list']
        for item in items:
            os.fspath(item['img_path']), os.fspath(item['seg_map_path'])
    if class_set.name.startswith('nuimages') and not is_ours:
        raise LabelError(
            f'{path}: class set {class_set.name} is for lists of `s3pt-data nuimages`, '
            'which this is not. Name your own classes: docs/own_labels.md.'
        )
    return items


def folder_pairs(
    images: str | Path, masks: str | Path, mask_suffix: str = '.png'
) -> list[tuple[Path, Path]]:
    """Images below a folder, sorted, with the masks of the same names below another.

    Args:
        images: Folder of images, see :func:`~s3pt_mm.data.image_files.find_images`.
        masks: Folder of masks: ``b/c.jpg`` of ``images`` has ``b/c`` + ``mask_suffix`` here.
        mask_suffix: End of a mask's name, after its image's.

    Raises:
        DataError: There is no image.
    """
    paths = find_images(images).paths
    if not paths:
        raise DataError(images, 'holds no image', f'Endings that count: {SUFFIXES}')
    return [
        (Path(images, path), Path(masks, os.path.splitext(path)[0] + mask_suffix)) for path in paths
    ]
