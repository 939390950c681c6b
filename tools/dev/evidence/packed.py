"""A data set as one small file: JPEG frames, label maps, completed depth; kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from s3pt_mm.common.files import replacing
from s3pt_mm.data.class_sets import IGNORE, ClassSet
from s3pt_mm.data.labelled_images import (
    DrawBox,
    LabelledImage,
    LabelledImages,
    normalised,
)
from tools.dev.evidence.data import Source

_THREADS = 8


@dataclass(frozen=True)
class Frames:
    """One data set in memory.

    Attributes:
        name: Its name.
        images: (n, 3, H, W) uint8 RGB.
        labels: By image, (H, W) uint8 classes, 255 ignored; images without labels are absent.
        depth: By image, (h, w) float32 metres on a grid over the image, 0 where none; absent as
            above.
        classes: Names.
        pretraining: Images that pre-training sees.
        train: Labelled images that probes learn from.
        val: Labelled images that they are judged by.
    """

    name: str
    images: Tensor
    labels: dict[int, np.ndarray]
    depth: dict[int, np.ndarray]
    classes: tuple[str, ...]
    pretraining: np.ndarray
    train: np.ndarray
    val: np.ndarray

    def split(self, name: str, size: int) -> HeldImages:
        """``'train'`` or ``'val'`` as labelled images of ``size`` pixels."""
        return HeldImages(self, getattr(self, name), size)


class HeldImages(LabelledImages):
    """Labelled images that are decoded already.

    Args:
        frames: Where they are.
        chosen: Which of them.
        size: Side in pixels that views are resized to.
    """

    def __init__(self, frames: Frames, chosen: Sequence[int], size: int) -> None:
        grey = tuple((8 * index,) * 3 for index in range(len(frames.classes)))
        labels = {**{index: index for index in range(len(frames.classes))}, IGNORE: IGNORE}
        classes = ClassSet(frames.name, frames.classes, grey, labels)
        pairs = [(f'{frames.name}/{index}', '') for index in chosen]
        super().__init__(pairs, class_set=classes, image_size=(size, size))
        self.frames, self.chosen = frames, chosen

    def read(self, index: int, draw_box: DrawBox | None = None) -> LabelledImage:
        """See :class:`LabelledImages`."""
        number = int(self.chosen[index])
        pixels = self.frames.images[number].permute(1, 2, 0).numpy()
        height, width = pixels.shape[:2]
        left, top, right, bottom = draw_box(width, height) if draw_box else (0, 0, width, height)
        image = Image.fromarray(pixels).resize(
            self.image_size[::-1], Image.Resampling.BILINEAR, box=(left, top, right, bottom)
        )
        label_map = self.frames.labels[number][top:bottom, left:right]
        return LabelledImage(normalised(image), label_map, self.pairs[index][0])


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Label map (H, W) at (rows, columns): the nearest label; any label of the cell before none.

    Sparse labels, points of a sweep, would be lost to nearest-pixel sampling.
    """
    rows, columns = size
    out = np.full(size, IGNORE, np.uint8)
    y, x = np.nonzero(labels != IGNORE)
    out[y * rows // labels.shape[0], x * columns // labels.shape[1]] = labels[y, x]
    nearest = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return np.where(nearest != IGNORE, nearest, out)


def pack(
    source: Source, path: Path, *, height: int = 360, quality: int = 82, most: int | None = None
) -> int:
    """Write a data set; returns the file's size in bytes.

    Args:
        source: Data set; its labelled images are all written.
        path: ``.npz``.
        height: Pixels of a frame; larger ones are reduced.
        quality: Of JPEG.
        most: Pre-training images, drawn evenly; None takes all.
    """
    items = _pretraining(source, most)
    pairs = {split: getattr(source, split).pairs for split in ('train', 'val')}
    paths = list(
        dict.fromkeys(
            [*(item[0] for item in items), *(p for two in pairs.values() for p, _ in two)]
        )
    )
    number = {name: index for index, name in enumerate(paths)}
    with Image.open(paths[0]) as first:
        size = (min(height, first.height), round(first.width * min(height / first.height, 1)))

    def frame(name: str) -> np.ndarray:
        pixels = cv2.imread(name)
        if pixels.shape[:2] != size:
            pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
        return cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]

    labelled: dict[int, np.ndarray] = {}
    for split in ('train', 'val'):
        images = getattr(source, split)
        for index, (name, _) in enumerate(images.pairs):
            label_map = resize_labels(images[index].label_map, size)
            labelled[number[name]] = cv2.imencode('.png', label_map)[1]
    depth = {number[name]: _depth_png(grid) for name, grid in items if grid is not None}
    with replacing(path) as part, open(part, 'wb') as file:
        np.savez(
            file,
            classes=np.array(source.val.class_set.classes),
            size=np.array(size),
            pretraining=np.array([number[name] for name, _ in items]),
            **{split: np.array([number[p] for p, _ in two]) for split, two in pairs.items()},
            **_joined('image', {index: frame(name) for name, index in number.items()}),
            **_joined('labels', labelled),
            **_joined('depth', depth),
        )
    return path.stat().st_size


def load(path: Path) -> Frames:
    """Read and decode a file that :func:`pack` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    with ThreadPoolExecutor(_THREADS) as pool:

        def decoded(name: str, flag: int) -> dict[int, np.ndarray]:
            pieces = np.split(arrays[f'{name}_bytes'], arrays[f'{name}_ends'][:-1])
            images = pool.map(lambda piece: cv2.imdecode(piece, flag), pieces)
            return dict(zip(arrays[f'{name}_of'].tolist(), images, strict=False))

        images = decoded('image', cv2.IMREAD_COLOR)
        labels = decoded('labels', cv2.IMREAD_UNCHANGED)
        depth = decoded('depth', cv2.IMREAD_UNCHANGED)
    pixels = np.stack([images[index][..., ::-1] for index in range(len(images))])
    return Frames(
        path.stem,
        torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
        labels,
        {index: grid.astype(np.float32) / 100 for index, grid in depth.items()},
        tuple(arrays['classes'].tolist()),
        *(arrays[name] for name in ('pretraining', 'train', 'val')),
    )


def has_depth(path: Path) -> bool:
    """Whether a packed data set has depth."""
    with np.load(path, allow_pickle=False) as file:
        return len(file['depth_of']) > 0


def _joined(name: str, pieces: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    """Files of several images as one array of bytes, their ends and whose they are."""
    flat = [np.ravel(piece) for piece in pieces.values()] or [np.zeros(0, np.uint8)]
    return {
        f'{name}_bytes': np.concatenate(flat),
        f'{name}_ends': np.cumsum([len(piece) for piece in flat]),
        f'{name}_of': np.array(list(pieces), np.int64),
    }


def _depth_png(grid: np.ndarray) -> np.ndarray:
    # Centimetres in whole decimetres: enough for tokens, and far fewer bytes.
    return cv2.imencode('.png', (10 * np.rint(grid * 10)).clip(0, 65530).astype(np.uint16))[1]


def _pretraining(source: Source, most: int | None) -> list[tuple[str, np.ndarray | None]]:
    """Path of each pre-training image, and its completed depth on the grid where there is LiDAR."""
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import DATASETS

    from s3pt_mm.data import datasets, transforms  # noqa: F401 - registers them

    init_default_scope('mmpretrain')
    steps: list[dict[str, Any]] = [dict(type='LoadImage')]
    if source.has_depth:
        steps.append(dict(type='LoadLidar', depth_completion='classical'))
    dataset = DATASETS.build(dict(source.pretraining, pipeline=steps))
    count = min(most or len(dataset), len(dataset))
    found = []
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int):
        item = dataset[int(index)]
        points = item.get('lidar_uvd')
        grid = None if points is None else depth_grid(points, item['img'].size)
        found.append((str(item['img_path']), grid))
    return found


def depth_grid(points: Iterable[Any], size: tuple[int, int]) -> np.ndarray:
    """Completed points (M, 3) of an image of (width, height) as the grid that they came from."""
    from s3pt_mm.data.geometry.completion import GRID_WIDTH

    u, v, depth = np.asarray(points, np.float32).reshape(-1, 3).T
    cell = max(1.0, size[0] / GRID_WIDTH)
    grid = np.zeros([int(np.ceil(side / cell)) for side in size[::-1]], np.float32)
    grid[(v / cell).astype(int), (u / cell).astype(int)] = depth
    return grid
