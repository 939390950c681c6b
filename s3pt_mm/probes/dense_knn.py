"""Segmentation by retrieval: no head is trained, minutes instead of 160,000 iterations.

The memory holds patch features of training images with the share of each class among the patch's
pixels. A patch of a test image takes the labels of its ``k`` nearest memory patches (cosine),
weighted by softmax(similarity / temperature); the patch grid of class shares is enlarged
bilinearly to the label map's own resolution and its maximum is the prediction. This is the dense
nearest-neighbour evaluation of CrIBo (arXiv 2310.07855, section 4) and before it of Hummingbird
(arXiv 2306.01667); their k is 30 and their temperature 0.02. They search approximately and draw
the memory over augmentation epochs; here the search is exact and the memory a seeded draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from s3pt_mm.data.class_sets import IGNORE
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.probes.confusion import confusion_matrix, scores

ArrayLike = Tensor | NDArray


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


class PatchMemory:
    """Patch features and their label shares, searched exactly by cosine through faiss.

    Args:
        features: (M, d).
        label_histograms: (M, C) shares; rows that sum to 0 (nothing labelled) are left out.

    Raises:
        ValueError: Lengths differ, nothing is labelled, or a feature is not finite.
    """

    def __init__(self, features: ArrayLike, label_histograms: ArrayLike) -> None:
        import faiss

        vectors, shares = _float32(features), _float32(label_histograms)
        if len(vectors) != len(shares):
            raise ValueError(f'{len(vectors)} memory features, but {len(shares)} label histograms.')
        labelled = shares.sum(1) > 0
        if not labelled.any():
            raise ValueError('No patch of the memory has a labelled pixel.')
        self.shares = torch.from_numpy(shares[labelled])
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(_normalised(vectors[labelled], 'memory'))

    def __len__(self) -> int:
        return self.index.ntotal

    def classify(self, queries: ArrayLike, *, k: int, temperature: float) -> Tensor:
        """Class shares of query patches from their nearest memory patches.

        Args:
            queries: (Q, d).
            k: Number of neighbours; at most the size of the memory is used.
            temperature: Of the softmax over cosine similarities.

        Returns:
            (Q, C) float32; rows sum to 1.
        """
        if k < 1 or temperature <= 0:
            raise ValueError(f'k is {k} (at least 1), temperature {temperature} (above 0).')
        vectors = _normalised(_float32(queries), 'query')
        similarity, index = self.index.search(vectors, min(k, len(self)))
        weights = torch.softmax(torch.from_numpy(similarity) / temperature, dim=1)
        return torch.einsum('qk,qkc->qc', weights, self.shares[torch.from_numpy(index)])


def dense_knn_miou(
    memory_features: ArrayLike,
    memory_label_histograms: ArrayLike,
    query_features: Sequence[ArrayLike],
    query_label_maps: Sequence[NDArray],
    num_classes: int,
    k: int = 30,
    temperature: float = 0.02,
    *,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """mIoU of dense nearest-neighbour segmentation.

    Args:
        memory_features: (M, d) patch features of training images.
        memory_label_histograms: (M, C), from :func:`patch_label_histograms`.
        query_features: One (rows, columns, d) grid of patch features a test image.
        query_label_maps: One (H, W) label map a test image, at full resolution, 255 ignored.
        num_classes: Number of classes C.
        k: Number of neighbours.
        temperature: Of the softmax over similarities.
        classes: Class names for the result's keys; default '0', '1', ...

    Returns:
        ``dict(mIoU, mAcc, aAcc, IoU={class: percent}, Acc={class: percent})``, in percent.

    Raises:
        ValueError: Numbers of images or sizes do not fit.
    """
    if len(query_features) != len(query_label_maps) or not len(query_features):
        raise ValueError(
            f'{len(query_features)} images with features, {len(query_label_maps)} label maps; '
            'there must be one each, and at least one.'
        )
    memory = PatchMemory(memory_features, memory_label_histograms)
    if memory.shares.shape[1] != num_classes:
        raise ValueError(
            f'The label histograms have {memory.shares.shape[1]} columns, not {num_classes}.'
        )
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for features, label_map in zip(query_features, query_label_maps, strict=True):
        prediction = segment(memory, features, label_map.shape, k=k, temperature=temperature)
        confusion += confusion_matrix(prediction, label_map, num_classes=num_classes)
    return scores(confusion, classes or [str(index) for index in range(num_classes)])


def segment(
    memory: PatchMemory,
    features: ArrayLike,
    size: tuple[int, int],
    *,
    k: int = 30,
    temperature: float = 0.02,
) -> NDArray[np.int64]:
    """Predicted classes (H, W) of one image from its patch features (rows, columns, d)."""
    features = _float32(features)
    if features.ndim != 3:
        raise ValueError(f'Query features have shape {features.shape}, not (rows, columns, d).')
    rows, columns, width = features.shape
    shares = memory.classify(features.reshape(-1, width), k=k, temperature=temperature)
    return largest_class(shares.reshape(rows, columns, -1), size)


def largest_class(grid: Tensor, size: tuple[int, int]) -> NDArray[np.int64]:
    """Class (H, W) of each pixel: the largest of class scores (rows, columns, C), enlarged."""
    enlarged = F.interpolate(
        grid.permute(2, 0, 1)[None], size=tuple(size), mode='bilinear', align_corners=False
    )
    return enlarged[0].argmax(0).numpy()


FeatureMap = Callable[[Tensor], Tensor]
"""Images (B, 3, h, w), normalised -> feature map (B, d, rows, columns)."""


@torch.no_grad()
def extract_patches(
    feature_map: FeatureMap,
    images: LabelledImages,
    *,
    batch_size: int = 8,
    device: torch.device | str = 'cpu',
) -> tuple[Tensor, list[NDArray[np.uint8]]]:
    """Patch features of all images.

    Args:
        feature_map: E.g. ``lambda x: backbone(x)[-1]`` of a ViT with ``out_type='featmap'``; in
            eval mode.
        images: The images; all have one size.
        batch_size: Images at a time.
        device: Where ``feature_map`` computes.

    Returns:
        Features (I, rows, columns, d) float32 on the CPU and the I label maps.
    """
    features, label_maps = [], []
    for start in range(0, len(images), batch_size):
        items = [images[index] for index in range(start, min(start + batch_size, len(images)))]
        output = feature_map(torch.stack([item.image for item in items]).to(device))
        features.append(output.permute(0, 2, 3, 1).float().cpu())
        label_maps += [item.label_map for item in items]
    return torch.cat(features), label_maps


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
    grid = tuple(features.shape[1:3])
    shares = np.concatenate([patch_label_histograms(m, grid, num_classes) for m in label_maps])
    keep = np.flatnonzero(shares.sum(1) > 0)
    if memory_size is not None and len(keep) > memory_size:
        keep = np.sort(np.random.default_rng(seed).choice(keep, memory_size, replace=False))
    return features.flatten(0, 2)[torch.from_numpy(keep)], shares[keep]


def evaluate_dense_knn(
    feature_map: FeatureMap,
    train: LabelledImages,
    val: LabelledImages,
    *,
    k: int = 30,
    temperature: float = 0.02,
    memory_size: int | None = 100_000,
    seed: int = 0,
    batch_size: int = 8,
    device: torch.device | str = 'cpu',
) -> dict[str, Any]:
    """Dense k-NN figures of a backbone, from images to mIoU.

    Args:
        feature_map: See :func:`extract_patches`.
        train: Images of the memory.
        val: Images to segment.
        k: Number of neighbours.
        temperature: Of the softmax over similarities.
        memory_size: Patches in the memory at most.
        seed: Of the memory's draw.
        batch_size: Images at a time.
        device: Where ``feature_map`` computes.

    Returns:
        The figures of :func:`dense_knn_miou`, by class name, and ``memory_size``.
    """
    if train.class_set != val.class_set:
        raise ValueError(f'Class sets differ: {train.class_set.name} and {val.class_set.name}.')
    num_classes = len(val.class_set.classes)
    settings = dict(batch_size=batch_size, device=device)
    memory, shares = draw_memory(
        *extract_patches(feature_map, train, **settings),
        num_classes=num_classes,
        memory_size=memory_size,
        seed=seed,
    )
    features, label_maps = extract_patches(feature_map, val, **settings)
    result = dense_knn_miou(
        memory, shares, features, label_maps, num_classes, k, temperature,
        classes=val.class_set.classes,
    )  # fmt: skip
    return dict(result, memory_size=len(memory))


def _float32(values: ArrayLike) -> NDArray[np.float32]:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.ascontiguousarray(values, np.float32)


def _normalised(vectors: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise ValueError(f'A {what} feature is not finite.')
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
