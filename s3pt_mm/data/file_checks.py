"""What can be wrong with the files of one item of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.class_lists import class_set
from s3pt_mm.data.duplicates import content_hash, look_hash, near_groups, same_groups
from s3pt_mm.data.image_files import looks_like_mask, mask_patterns
from s3pt_mm.data.label_maps import LabelError, read_label_map
from s3pt_mm.data.shards import read_bytes
from s3pt_mm.data.transforms.depth_map import fits_image, read_depth_map
from s3pt_mm.data.transforms.image import EncodedImage
from s3pt_mm.data.transforms.lidar import read_sweep

Problem = dict[str, str]


class Look(NamedTuple):
    """A whole image, as far as it is compared with others.

    Attributes:
        name: Its path, in a shard with the member's name.
        content: :func:`~s3pt_mm.data.duplicates.content_hash`.
        look: :func:`~s3pt_mm.data.duplicates.look_hash`.
        is_mask: Whether it looks like a label mask.
    """

    name: str
    content: str
    look: str
    is_mask: bool


def check_item(item: dict[str, Any]) -> tuple[list[Problem], list[Look]]:
    """Problems of an item's images, masks and depth maps, and what its whole images look like.

    Images are decoded wholly; their size is compared with the info file's, the mask's and the
    depth map's.

    Args:
        item: Of pre-training (``img_path``), of mmseg (``seg_map_path`` too) or of mmdet3d
            (``images`` by camera).
    """
    problems: list[Problem] = []
    looks: list[Look] = []
    for image in _images(item):
        path = image['img_path']
        if not os.path.isfile(path):
            problems.append(problem(path, 'missing', 'no such file'))
            continue
        try:
            data = read_bytes(path, image.get('img_span'))
            encoded = EncodedImage(data, path, upright=image.get('upright', False))
            pixels = encoded.decode()
        except (DataError, OSError) as error:
            problems.append(problem(path, 'torn', getattr(error, 'problem', str(error))))
            continue
        mask = not encoded.is_jpeg and looks_like_mask(pixels)
        name = f'{path}:{image["token"]}' if 'img_span' in image else path
        looks.append(Look(name, content_hash(data), look_hash(pixels), mask))
        expected = image.get('ori_size')
        if expected and tuple(expected) != encoded.size:
            message = f'{encoded.size[0]} x {encoded.size[1]} pixels, the info file says {expected}'
            problems.append(problem(path, 'wrong size', message))
        problems += _check_depth(image, encoded.size) + _check_labels(image, encoded.size)
    return problems, looks


def check_lidar(item: dict[str, Any], *, expected: bool) -> list[Problem]:
    """Problems of the LiDAR sweep of an item; a dataset without LiDAR has none."""
    lidar = item.get('lidar_points')
    if not lidar or not lidar.get('lidar_path'):
        where = next(_images(item), {}).get('img_path', '')
        return [problem(where, 'no lidar', 'no LiDAR sweep')] if expected else []
    path = lidar['lidar_path']
    if not os.path.isfile(path):
        return [problem(path, 'missing', 'no such file')]
    try:
        read_sweep(path, lidar['num_pts_feats'], lidar.get('span'))
    except DataError as error:
        kind = 'wrong size' if 'multiple' in error.problem else 'torn'
        return [problem(path, kind, error.problem)]
    return []


def problem(path: object, kind: str, text: str) -> Problem:
    """One line of the report."""
    return {'file': str(path), 'kind': kind, 'problem': text}


def compare(root: str, seen: Iterable[Look]) -> dict[str, Any]:
    """Duplicates, near-duplicates and masks among images.

    Args:
        root: Folder of the data, which patterns do not name.
        seen: Of all images that could be read.

    Returns:
        ``duplicates`` and ``near_duplicates`` (groups of names), ``masks`` (names) and ``exclude``
        (patterns that leave the masks out).
    """
    looks = {look.name: look for look in seen}
    names = sorted(looks)
    same = same_groups([looks[name].content for name in names])
    later = {place for group in same for place in group[1:]}
    single = [name for place, name in enumerate(names) if place not in later]
    photos = [name for name in single if not looks[name].is_mask]  # masks are alike
    near = near_groups([looks[name].look for name in photos])
    masks = [name for name in names if looks[name].is_mask]
    below = {name: os.path.relpath(name, root) if root else name for name in names}
    rest = (below[name] for name in names if not looks[name].is_mask)
    return {
        'duplicates': [[names[place] for place in group] for group in same],
        'near_duplicates': [[photos[place] for place in group] for group in near],
        'masks': masks,
        'exclude': mask_patterns((below[name] for name in masks), rest),
    }


def _images(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if 'img_path' in item:
        yield item
    else:
        yield from (image for image in item.get('images', {}).values() if image.get('img_path'))


def _check_depth(image: dict[str, Any], size: tuple[int, int]) -> list[Problem]:
    path = image.get('depth_map')
    if not path:
        return []
    if not os.path.isfile(path):
        return [problem(path, 'missing', 'no such file')]
    try:
        fits_image(path, read_depth_map(path, span=image.get('depth_span')), size)
    except DataError as error:
        kind = 'wrong size' if 'its image' in error.problem else 'torn'
        return [problem(path, kind, error.problem)]
    return []


def _check_labels(image: dict[str, Any], size: tuple[int, int]) -> list[Problem]:
    path = image.get('seg_map_path')
    if not path:
        return []
    if not os.path.isfile(path):
        return [problem(path, 'missing', 'no such file')]
    classes = class_set(image.get('class_set') or 'cityscapes19')
    try:
        read_label_map(path, classes, image_size=size[::-1], img_path=image['img_path'])
    except LabelError as error:
        kind = 'wrong size' if 'pixels, its image' in str(error) else 'torn'
        return [problem(path, kind, str(error))]
    except OSError as error:
        return [problem(path, 'torn', str(error))]
    return []
