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

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

ArrayLike = Tensor | NDArray


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
            (Q, C) float32; rows sum to 1. A query without direction (zero) has no neighbour
            and takes the memory's mean.
        """
        if k < 1 or temperature <= 0:
            raise ValueError(f'k is {k} (at least 1), temperature {temperature} (above 0).')
        vectors = _normalised(_float32(queries), 'query')
        similarity, index = self.index.search(vectors, min(k, len(self)))
        weights = torch.softmax(torch.from_numpy(similarity) / temperature, dim=1)
        found = torch.einsum('qk,qkc->qc', weights, self.shares[torch.from_numpy(index)])
        found[torch.from_numpy(~vectors.any(1))] = self.shares.mean(0)
        return found


def largest_class(grid: Tensor, size: Sequence[int]) -> NDArray[np.int64]:
    """Class (H, W) of each pixel: the largest of class scores (rows, columns, C), enlarged."""
    enlarged = F.interpolate(
        grid.permute(2, 0, 1)[None], size=tuple(size), mode='bilinear', align_corners=False
    )
    return enlarged[0].max(0).indices.numpy()  # argmax, in a sixth of the time on a CPU


def _float32(values: ArrayLike) -> NDArray[np.float32]:
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.ascontiguousarray(values, np.float32)


def _normalised(vectors: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise ValueError(f'A {what} feature is not finite.')
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
