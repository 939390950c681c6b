"""The clustering against the public reference code's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s3pt_mm.method.clustering import ClusteringConfig, ObjectPooling, cluster_joint_views
from tests.golden_cases import assert_detects_shift, compare, golden_cases, load


def run(case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tokens = torch.from_numpy(case['tokens_with_cls'])[:, 1:].unflatten(0, (2, -1))
    positions = torch.from_numpy(case['positions_m_b_xy_n']).permute(1, 0, 3, 2).flatten(1, 2)
    config = ClusteringConfig(
        num_clusters=int(case['num_clusters']),
        sinkhorn_iterations=int(case['sinkhorn_iterations']),
        sinkhorn_lambda=float(case['sinkhorn_lambda']),
        position_weight=float(case['pos_alpha']),
        rounds=int(case['outer_iterations']),
    )
    joint = tokens.transpose(0, 1).flatten(1, 2)
    assignment = cluster_joint_views(
        joint, positions, torch.from_numpy(case['init_token_index_b_k']), config
    )
    pool = ObjectPooling.from_assignment(assignment)
    objects = pool(tokens)
    return dict(
        assignments_m_b_n_k=assignment.weights().numpy(),
        valid_bk=assignment.valid.flatten().numpy(),
        centroids_view1=objects[0].numpy(),
        centroids_view2=objects[1].numpy(),
        centroids_per_image=pool.per_image.numpy(),
    )


@pytest.mark.parametrize('path', golden_cases('joint_view_clustering*.npz'))
def test_matches_reference(path: Path) -> None:
    case = load(path)
    actual = run(case)
    compare(actual, case)
    assert_detects_shift(actual, case)
