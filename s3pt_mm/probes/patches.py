"""Patch features and labels that probes work on: whole images, or crops without their place.

A street photo is sky above, road below. A probe of whole images is therefore answered to a good
part by *where* a patch lies, which an untrained position embedding tells already: with it ten
times larger a random network nearly reaches a trained one. ``views='crops'`` looks at random crops,
so that a place in the view is no place in the photo, and ``remove_place`` subtracts from every
feature the mean that the training views have at its place, so that what all images share there is
gone. What is left tells what a patch shows. Published figures come from whole images:
``views='images', remove_place=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3pt_mm.data.class_sets import IGNORE, ClassSet
from s3pt_mm.data.labelled_images import LabelledImage, LabelledImages

FeatureMap = Callable[[Tensor], Tensor]
"""Images (B, 3, h, w), normalised -> feature map (B, d, rows, columns)."""
Views = Literal['crops', 'images']


class RandomCrops(torch.utils.data.Dataset):
    """Seeded random crops of labelled images; the same ones for every network.

    Args:
        images: Where they come from; a crop has the sides' ratio of ``images.image_size`` and is
            resized to it.
        per_image: Crops of each image.
        scale: Range of a crop's area over that of the largest crop of its shape that fits.
        seed: Of the boxes; crop ``i`` depends on it and on ``i`` alone.
    """

    def __init__(
        self,
        images: LabelledImages,
        *,
        per_image: int = 4,
        scale: tuple[float, float] = (0.25, 0.75),
        seed: int = 0,
    ) -> None:
        if per_image < 1 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f'per_image {per_image} (at least 1), scale {scale} (within 0..1).')
        self.images, self.per_image, self.scale, self.seed = images, per_image, scale, seed

    @property
    def class_set(self) -> ClassSet:
        """What the labels mean."""
        return self.images.class_set

    def __len__(self) -> int:
        return self.per_image * len(self.images)

    def __getitem__(self, index: int) -> LabelledImage:
        rng = np.random.default_rng([self.seed, index])

        def box(width: int, height: int) -> tuple[int, int, int, int]:
            rows, columns = self.images.image_size
            largest = min(width / columns, height / rows)
            side = largest * np.sqrt(rng.uniform(*self.scale))
            w, h = round(side * columns), round(side * rows)
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return int(left), int(top), int(left) + w, int(top) + h

        return self.images.read(index // self.per_image, box)


@dataclass(frozen=True)
class Patches:
    """Patch features of one split as one network gives them.

    Attributes:
        features: (I, rows, columns, d) float32 on the CPU.
        label_maps: One (H, W) label map a view, at the file's resolution, 255 where ignored.
    """

    features: Tensor
    label_maps: list[NDArray[np.uint8]]


@torch.no_grad()
def extract_patches(
    feature_maps: Mapping[str, FeatureMap],
    images: LabelledImages | RandomCrops,
    *,
    batch_size: int = 8,
    device: torch.device | str = 'cpu',
) -> dict[str, Patches]:
    """Patch features of all images by several networks; every image is read once.

    Args:
        feature_maps: E.g. ``lambda x: backbone(x)[-1]`` of a ViT with ``out_type='featmap'``; in
            eval mode.
        images: The images; all have one size.
        batch_size: Images at a time.
        device: Where the feature maps compute.
    """
    features: dict[str, list[Tensor]] = {name: [] for name in feature_maps}
    label_maps: list[NDArray[np.uint8]] = []
    for start in range(0, len(images), batch_size):
        items = [images[index] for index in range(start, min(start + batch_size, len(images)))]
        batch = torch.stack([item.image for item in items]).to(device)
        for name, feature_map in feature_maps.items():
            features[name].append(feature_map(batch).permute(0, 2, 3, 1).float().cpu())
        label_maps += [item.label_map for item in items]
    return {name: Patches(torch.cat(parts), label_maps) for name, parts in features.items()}


def subtract_place(features: Tensor, reference: Tensor) -> Tensor:
    """Features without the mean that ``reference`` has at their place.

    Args:
        features: (I, rows, columns, d).
        reference: (J, rows, columns, d), the training views.

    Returns:
        (I, rows, columns, d). A feature that is its place's mean but for rounding becomes zero:
        the direction of a rounding error would tell the place.
    """
    mean = reference.double().mean(0)
    left = features.double() - mean
    nothing = left.norm(dim=-1, keepdim=True) < 1e-5 * mean.norm(dim=-1, keepdim=True)
    return left.masked_fill(nothing, 0.0).float()


def probe_patches(
    feature_maps: Mapping[str, FeatureMap],
    train: LabelledImages,
    val: LabelledImages,
    *,
    views: Views = 'crops',
    remove_place: bool = True,
    crops: int = 4,
    seed: int = 0,
    **settings: Any,
) -> dict[str, tuple[Patches, Patches]]:
    """What a probe fits on and what it is judged by, for each feature map.

    Args:
        feature_maps: By name.
        train: Images to learn from.
        val: Images to segment.
        views: ``'crops'`` of the images, or the whole ``'images'``.
        remove_place: Subtract the training views' mean feature of each place.
        crops: Crops of each image.
        seed: Of the crops.
        settings: Of :func:`extract_patches`.

    Raises:
        ValueError: Class sets differ, or ``views`` is neither.
    """
    if train.class_set != val.class_set:
        raise ValueError(f'Class sets differ: {train.class_set.name} and {val.class_set.name}.')
    if views not in ('crops', 'images'):
        raise ValueError(f"views is {views!r}; it is 'crops' or 'images'.")
    known, new = (
        extract_patches(
            feature_maps,
            RandomCrops(split, per_image=crops, seed=seed) if views == 'crops' else split,
            **settings,
        )
        for split in (train, val)
    )
    pairs = {name: (known[name], new[name]) for name in feature_maps}
    if not remove_place:
        return pairs

    def centred(part: Patches, name: str) -> Patches:
        return Patches(subtract_place(part.features, known[name].features), part.label_maps)

    return {name: (centred(a, name), centred(b, name)) for name, (a, b) in pairs.items()}


def patch_label_histograms(
    label_map: NDArray, grid: tuple[int, int], num_classes: int, *, ignore_index: int = IGNORE
) -> NDArray[np.float32]:
    """Share of each class among the labelled pixels of each cell of a grid.

    Args:
        label_map: (H, W) labels; the grid is laid over it whatever its size.
        grid: (rows, columns).
        num_classes: Number of classes C.
        ignore_index: Label that does not count.

    Returns:
        (rows * columns, C), row-major; a cell without any labelled pixel is all zero.
    """
    height, width = label_map.shape
    rows, columns = grid
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    cell = row[:, None] * columns + column
    keep = label_map != ignore_index
    values = label_map[keep].astype(np.int64)
    if values.size and values.max() >= num_classes:
        raise ValueError(f'A label map holds {values.max()}, but there are {num_classes} classes.')
    counts = np.bincount(cell[keep] * num_classes + values, minlength=rows * columns * num_classes)
    counts = counts.reshape(rows * columns, num_classes).astype(np.float32)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def draw_memory(
    features: Tensor,
    label_maps: Sequence[NDArray],
    *,
    num_classes: int,
    memory_size: int | None,
    seed: int = 0,
) -> tuple[Tensor, NDArray[np.float32]]:
    """Memory patches of training images: all labelled ones, or a seeded uniform draw of them.

    Args:
        features: (I, rows, columns, d).
        label_maps: I label maps.
        num_classes: Number of classes C.
        memory_size: At most this many patches; None keeps all.
        seed: Of the draw.

    Returns:
        Features (M, d) and label shares (M, C).
    """
    grid = features.shape[1], features.shape[2]
    shares = np.concatenate([patch_label_histograms(m, grid, num_classes) for m in label_maps])
    keep = np.flatnonzero(shares.sum(1) > 0)
    if memory_size is not None and len(keep) > memory_size:
        keep = np.sort(np.random.default_rng(seed).choice(keep, memory_size, replace=False))
    return features.flatten(0, 2)[torch.from_numpy(keep)], shares[keep]
