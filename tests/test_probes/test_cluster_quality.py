"""Figures of cluster quality on clusters whose worth is known, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3pt_mm.probes import cluster_quality as quality

SEEDS = settings(max_examples=25, deadline=None)


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    return random.randint(0, 9, 60), random.randint(-1, 5, 60)


@SEEDS
@given(seed=st.integers(0, 10_000))
def test_ari_and_purity_equal_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip('sklearn.metrics')
    clusters, segments = draw(seed)
    counts, known = quality.contingency(clusters, segments), segments >= 0
    wanted = metrics.adjusted_rand_score(segments[known], clusters[known])
    assert quality.adjusted_rand_index(counts) == pytest.approx(wanted)
    table = metrics.cluster.contingency_matrix(clusters[known], segments[known])
    assert quality.purity(counts) == pytest.approx(table.max(1).sum() / known.sum())


def test_perfect_and_useless_clusters() -> None:
    segments = np.repeat([0, 1, 2], 20)
    perfect = quality.contingency(segments + 5, segments)
    assert quality.purity(perfect) == quality.adjusted_rand_index(perfect) == 1
    one = quality.contingency(np.zeros(60, int), segments)
    assert quality.purity(one) == pytest.approx(1 / 3) and quality.adjusted_rand_index(one) == 0


def test_borders() -> None:
    segments = np.zeros((1, 4, 4), int)
    segments[:, :, 2:] = 1
    assert quality.boundary_f1(segments + 3, segments) == 1
    # One border of four pairs found, and another of four pairs that is none.
    crossed = segments.copy()
    crossed[:, 2:] += 2
    assert quality.boundary_f1(crossed, segments) == pytest.approx(2 * 4 / (8 + 4))
    segments[:, :, 1] = quality.UNLABELLED  # nobody knows where the border is
    assert math.isnan(quality.boundary_f1(crossed, segments))


def test_variance_explained() -> None:
    clusters, known = np.array([0, 0, 1, 1, 1]), np.array([1, 1, 1, 1, 0], bool)
    values = np.array([5.0, 5, 9, 9, 1e9])
    assert quality.variance_explained(clusters, values, known) == 1
    assert quality.variance_explained(np.zeros(5, int), values, known) == 0
    assert math.isnan(quality.variance_explained(clusters, values, known & False))


def recalls(clusters: list, segments: list, objects: tuple = (1, 2)) -> dict[int, float]:
    labels = np.array(segments) * 10
    found = quality.object_recalls(
        np.array(clusters), np.array(segments), labels, np.array(objects)
    )
    return {each.label: each.recall for each in found}


def test_recall_counts_tokens_of_clusters_that_are_mostly_the_object() -> None:
    segments = [[1, 1, 2, 0], [1, 1, 2, 0]]
    assert recalls([[1, 1, 2, 0], [1, 1, 2, 0]], segments) == {10: 1, 20: 1}
    # Object 2 shares its cluster half and half with the background: not mostly it.
    assert recalls([[1, 1, 2, 2], [1, 1, 2, 2]], segments) == {10: 1, 20: 0}
    # Half of object 1 lies in a cluster that one view alone has: the losses never see it.
    assert recalls([[1, 3, 2, 0], [1, 1, 2, 0]], segments) == {10: 0.75, 20: 1}
    # An object that one view does not show is not counted; unlabelled tokens dilute nothing.
    assert recalls([[1, 1, 2, 0], [1, 1, 2, 0]], [[1, 1, 2, 0], [1, 1, -1, 0]]) == {10: 1}
