"""Neighbour retrieval and queue update against the public reference code's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s3pt_mm.method.memory import ObjectQueue, cycle_consistent_neighbours
from tests.golden_cases import assert_detects_shift, compare, golden_cases, load


def fill(case: dict[str, np.ndarray], dtype: str) -> ObjectQueue:
    counts = torch.from_numpy(case['images_in_queue_counts_before']).long()
    before = torch.from_numpy(case['queue_before'])
    slots = before.shape[1] // len(counts)
    queue = ObjectQueue(
        num_images=len(counts), max_objects_per_image=slots, channels=before.shape[2], dtype=dtype
    )
    held = int(counts.sum())
    # Three pushes, oldest images first: the ring has moved before anything is compared.
    borders = np.concatenate([[0], np.cumsum(counts.numpy())])
    for images in (
        (range(8, 12), range(3, 8), range(0, 3)) if len(counts) == 12 else (range(len(counts)),)
    ):
        a, b = borders[images.start], borders[images.stop]
        queue.push(before[:, a:b], counts[images.start : images.stop])
    assert len(queue) == held
    return queue


def run(case: dict[str, np.ndarray], dtype: str = 'float32') -> dict[str, np.ndarray]:
    queue = fill(case, dtype)
    views = [torch.from_numpy(case[f'centroids_view{view}']) for view in (1, 2)]
    flat = torch.full((queue.capacity,), -1)
    flat[queue.flat_positions()] = torch.arange(len(queue))
    actual: dict[str, np.ndarray] = {}
    near = cycle_consistent_neighbours(torch.stack(views), torch.stack(views), queue)
    for view, (positions, consistent) in enumerate(zip(*near, strict=True)):
        name = f'view{view + 1}'
        actual[f'neighbour_index_{name}'] = flat[positions].numpy()
        actual[f'cycle_consistent_{name}'] = consistent.numpy()
        vectors = [queue.take(side, positions) for side in (0, 1)]
        actual[f'neighbours_of_{name}'] = torch.stack(vectors).numpy()
    queue.push(torch.stack(views), torch.from_numpy(case['centroids_per_image']))
    actual['images_in_queue_counts_after'] = queue.counts.to(torch.int32).numpy()
    held = queue.flat_positions()
    actual['queue_after'] = torch.stack([queue.take(side, held) for side in (0, 1)]).numpy()
    return actual


def wanted(case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    held = int(case['images_in_queue_counts_after'].sum())
    return {**case, 'queue_after': case['queue_after'][:, :held]}


@pytest.mark.parametrize('path', golden_cases('neighbour_retrieval*.npz'))
def test_matches_reference(path: Path) -> None:
    case = load(path)
    actual = run(case)
    compare(actual, wanted(case))
    assert_detects_shift(actual, wanted(case))


@pytest.mark.parametrize('path', golden_cases('neighbour_retrieval*.npz'))
def test_half_precision_storage_finds_the_same_neighbours(path: Path) -> None:
    case = load(path)
    actual = run(case, 'float16')
    compare(actual, wanted(case), rtol=1e-3, atol=1e-3)
