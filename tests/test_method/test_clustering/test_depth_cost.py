"""The depth terms against pair-by-pair twins, and what must hold of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from s3pt_mm.method.clustering import ClusteringConfig, cluster_joint_views, draw_first_tokens
from s3pt_mm.method.clustering.costs import (
    depth_cost,
    measured_depths,
    nearest_member,
    pairwise_depths,
    squared_depth_to_centroids,
)
from tests.reference import equations

B, T, K = 2, 16, 5
RULES = ('centroid_squared', 'nearest')


def draw(seed: int, share: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    """Depths with repeated values, a mask, and labels of which some are no cluster (K)."""
    generator = torch.Generator().manual_seed(seed)
    depths = torch.randint(2, 60, (B, T), generator=generator).double()
    has_depth = torch.rand(B, T, generator=generator) < share
    # What has no depth may hold anything.
    depths = torch.where(has_depth, depths, torch.nan)
    return depths, has_depth, torch.randint(0, K + 1, (B, T), generator=generator)


def term(rule: str, depths: Tensor, has_depth: Tensor, labels: Tensor, scale='image') -> Tensor:  # noqa: ANN001
    if rule == 'nearest':
        distances = nearest_member(pairwise_depths(depths, has_depth), labels, K)
    else:
        members = (labels[:, :, None] == torch.arange(K)).double()
        distances = squared_depth_to_centroids(*measured_depths(depths, has_depth), members)
    return depth_cost(distances, scale)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.1, 0.6, 1.0]))
@pytest.mark.parametrize('scale', ['image', 'none'])
@pytest.mark.parametrize('rule', RULES)
def test_equals_its_plain_twin(rule: str, scale: str, seed: int, share: float) -> None:
    depths, has_depth, labels = draw(seed, share)
    cost = term(rule, depths, has_depth, labels, scale)
    for b in range(B):
        members = labels[b][:, None] == torch.arange(K)
        twin = equations.depth_cost(depths[b], has_depth[b], members, rule, scale == 'image')
        torch.testing.assert_close(cost[b], twin)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-20, 20), factor=st.floats(0.2, 5))
@pytest.mark.parametrize('rule', RULES)
def test_scaled_cost_knows_no_unit(rule: str, seed: int, shift: float, factor: float) -> None:
    depths, has_depth, labels = draw(seed)
    cost = term(rule, depths, has_depth, labels)
    assert 0 <= cost.min() and cost.max() <= 1
    moved = term(rule, factor * depths + shift, has_depth, labels)
    torch.testing.assert_close(moved, cost)


@pytest.mark.parametrize('rule', RULES)
def test_what_is_unknown_favours_no_cluster(rule: str) -> None:
    depths, has_depth, labels = draw(0)
    labels[labels == 3] = 2  # an empty cluster
    cost = term(rule, depths, has_depth, labels)
    for b in range(B):
        without_token, empty = cost[b][~has_depth[b]], cost[b][:, 3]
        assert len(without_token.unique()) == len(empty.unique()) == 1
        assert without_token.unique() == empty.unique() > 0
        known = cost[b][has_depth[b]][:, [0, 1, 2, 4]]
        assert len(known.unique()) > 5


@pytest.mark.parametrize('rule', RULES)
def test_no_return_costs_nothing(rule: str) -> None:
    depths, has_depth, labels = draw(1)
    has_depth[0] = False
    cost = term(rule, depths, has_depth, labels)
    assert not cost[0].any() and cost[1].any()


@pytest.mark.parametrize('rule', RULES)
def test_an_exact_match_in_the_other_view_costs_nothing(rule: str) -> None:
    """Both views see the same wall at the same depth: that cluster must be the cheapest."""
    depths = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    labels = torch.tensor([[0, 0, 1, 1]])
    cost = term(rule, depths, torch.ones(1, 4, dtype=torch.bool), labels)[0]
    assert cost[:, :2].tolist() == [[0, 1], [0, 1], [1, 0], [1, 0]]


@pytest.mark.parametrize(
    'options',
    [
        dict(depth_weight=4.0),
        dict(depth_weight=0.25),
        dict(depth_weight=0.0),
        dict(depth_weight=0.5, depth_cost='nearest'),
        dict(depth_weight=0.01, depth_scale='none'),
        dict(depth_weight=4.0, adaptive_prior=False),
        dict(depth_weight=1.0, rounds=2),
    ],
    ids=str,
)
def test_labels_equal_the_plain_loop(options: dict) -> None:
    config = ClusteringConfig(num_clusters=K, sinkhorn_iterations=1, **options)
    for seed in range(6):
        depths, has_depth, _ = draw(seed)
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(B, T, 6, generator=generator, dtype=torch.float64)
        xy = 900 * torch.rand(B, T, 2, generator=generator, dtype=torch.float64)
        first = draw_first_tokens(torch.arange(B) + seed, B, T, K, 'cpu')
        labels = cluster_joint_views(tokens, xy, first, config, depths, has_depth).labels
        members = equations.cluster(
            tokens,
            xy,
            first,
            iterations=1,
            depth=depths,
            has=has_depth,
            depth_weight=config.depth_weight,
            rounds=config.rounds,
            depth_rule=config.depth_cost,
            depth_scaled=config.depth_scale == 'image',
            adaptive_prior=config.adaptive_prior,
        )
        assert torch.equal(labels, members.long().argmax(2)), seed
