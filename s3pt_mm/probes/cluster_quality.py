"""How well joint-view clusters agree with labels: pure NumPy, one image at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNLABELLED = -1


class ObjectRecall(NamedTuple):
    """One object of an image that both views show.

    Attributes:
        label: Its class.
        tokens: How many tokens of both views show it.
        recall: Share of them whose cluster is valid and mostly this object.
    """

    label: int
    tokens: int
    recall: float


def contingency(clusters: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """(clusters, segments) counts of the labelled tokens; ids may be any integers.

    Args:
        clusters: (T,) cluster of each token.
        segments: (T,) segment, ``UNLABELLED`` where unknown.
    """
    known = segments != UNLABELLED
    rows, row = np.unique(clusters[known], return_inverse=True)
    columns, column = np.unique(segments[known], return_inverse=True)
    counts = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(counts, (row, column), 1)
    return counts


def purity(counts: np.ndarray) -> float:
    """Share of tokens that belong to their cluster's largest segment."""
    return float(counts.max(1).sum() / counts.sum())


def adjusted_rand_index(counts: np.ndarray) -> float:
    """Agreement of two partitions, 1 if equal and 0 on average by chance (Hubert and Arabie)."""
    pairs = [(x * (x - 1) / 2).sum() for x in (counts, counts.sum(0), counts.sum(1), counts.sum())]
    together, columns, rows, all_pairs = map(float, pairs)
    expected = columns * rows / max(all_pairs, 1.0)
    highest = (columns + rows) / 2
    return 1.0 if highest == expected else (together - expected) / (highest - expected)


def boundary_f1(clusters: np.ndarray, segments: np.ndarray) -> float:
    """F1 of cluster borders against segment borders, over labelled neighbours within a view.

    Args:
        clusters: (views, side, side) cluster of each token.
        segments: Its segment, ``UNLABELLED`` where unknown.

    Returns:
        NaN where no segment border exists.
    """
    hit = found = wanted = 0
    for axis in (1, 2):
        a, b = (np.take(segments, range(s, segments.shape[axis] - 1 + s), axis) for s in (0, 1))
        c, d = (np.take(clusters, range(s, clusters.shape[axis] - 1 + s), axis) for s in (0, 1))
        known = (a != UNLABELLED) & (b != UNLABELLED)
        border, cut = (a != b) & known, (c != d) & known
        hit, found, wanted = hit + (border & cut).sum(), found + cut.sum(), wanted + border.sum()
    return float(2 * hit / (found + wanted)) if wanted else float('nan')


def variance_explained(clusters: np.ndarray, values: np.ndarray, known: np.ndarray) -> float:
    """1 - variance within clusters / variance, of the values that are known; NaN without any."""
    values, clusters = values[known].astype(np.float64), clusters[known]
    if len(values) < 2 or values.var() == 0:
        return float('nan')
    counts = np.bincount(clusters)
    means = np.bincount(clusters, values) / np.maximum(counts, 1)
    return float(1 - ((values - means[clusters]) ** 2).mean() / values.var())


def object_recalls(
    clusters: np.ndarray, segments: np.ndarray, labels: np.ndarray, objects: np.ndarray
) -> list[ObjectRecall]:
    """Which objects have clusters of their own.

    A token counts if its cluster has a token in both views (else the losses never see it) and more
    than half of the cluster's labelled tokens, in both views together, show the token's object.

    Args:
        clusters: (2, N) cluster of each token.
        segments: (2, N), ``UNLABELLED`` where unknown; objects have numbers of their own.
        labels: (2, N) class of each token.
        objects: Numbers of the segments that are objects.

    Returns:
        One entry for each object that both views show.
    """
    recalls = []
    in_both = np.intersect1d(*clusters)
    known = segments != UNLABELLED
    size = np.bincount(clusters[known], minlength=clusters.max() + 1)
    for number in objects:
        own = segments == number
        if not own.any(1).all():
            continue
        share = np.bincount(clusters[own], minlength=len(size)) / np.maximum(size, 1)
        kept = np.isin(clusters[own], in_both) & (share[clusters[own]] > 0.5)
        recalls.append(ObjectRecall(int(labels[own][0]), int(own.sum()), float(kept.mean())))
    return recalls
