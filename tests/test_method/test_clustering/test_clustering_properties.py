"""What must hold for every clustering, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from s3pt_mm.method.clustering import (
    ClusteringConfig,
    ObjectPooling,
    cluster_joint_views,
    draw_first_tokens,
)
from s3pt_mm.method.clustering.costs import nearest_member, pairwise_positions, rescale
from s3pt_mm.method.clustering.sinkhorn import hard_assignment, sinkhorn_scalings

B, N, D, K = 3, 30, 12, 7
CONFIG = ClusteringConfig(num_clusters=K, sinkhorn_iterations=2, cost_scope='image')


def inputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rand = dict(generator=generator, dtype=torch.float64)
    return dict(
        tokens=torch.randn(B, 2 * N, D, **rand),
        positions=torch.rand(B, 2 * N, 2, **rand) * 900,
        depths=torch.rand(B, 2 * N, **rand) * 60 + 1,
        has_depth=torch.rand(B, 2 * N, **rand) < 0.5,
        first_tokens=draw_first_tokens(torch.arange(B) + seed, B, 2 * N, K, 'cpu'),
    )


def with_depth(config: ClusteringConfig = CONFIG) -> ClusteringConfig:
    return ClusteringConfig(**{**vars(config), 'depth_weight': 4.0})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_equivariant_to_token_order(seed: int) -> None:
    given_ = inputs(seed)
    order = torch.randperm(2 * N, generator=torch.Generator().manual_seed(seed))
    place = torch.argsort(order)
    moved = {
        name: place[value] if name == 'first_tokens' else value[:, order]
        for name, value in given_.items()
    }
    labels = cluster_joint_views(config=with_depth(), **given_).labels
    assert torch.equal(cluster_joint_views(config=with_depth(), **moved).labels, labels[:, order])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_token_has_one_cluster_and_counts_agree(seed: int) -> None:
    assignment = cluster_joint_views(config=with_depth(), **inputs(seed))
    assert 0 <= int(assignment.labels.min()) and int(assignment.labels.max()) < K
    assert torch.equal(assignment.counts.sum(2), torch.full((B, 2), N))
    sums = assignment.weights().sum(2)
    assert torch.allclose(sums, (assignment.counts > 0).float().transpose(0, 1))


def test_without_depth_it_is_cribo() -> None:
    given_ = inputs()
    plain = cluster_joint_views(
        given_['tokens'], given_['positions'], given_['first_tokens'], CONFIG
    )
    weightless = cluster_joint_views(config=CONFIG, **given_)
    no_return = {**given_, 'has_depth': torch.zeros(B, 2 * N, dtype=torch.bool)}
    no_lidar = cluster_joint_views(config=with_depth(), **no_return)
    assert torch.equal(plain.labels, weightless.labels)
    assert torch.equal(plain.labels, no_lidar.labels)
    # ... and with depth it is not.
    assert not torch.equal(plain.labels, cluster_joint_views(config=with_depth(), **given_).labels)


def test_depth_separates_what_looks_alike() -> None:
    """Two surfaces of one look, near and far, interleaved in the image: only depth tells them."""
    torch.manual_seed(0)
    tokens = torch.ones(1, 2 * N, D) + 1e-3 * torch.randn(1, 2 * N, D)
    positions = torch.rand(1, 2 * N, 2)
    far = torch.arange(2 * N)[None] % 2 == 1
    depths = torch.where(far, 50.0, 5.0) + torch.rand(1, 2 * N)
    first = torch.tensor([[0, 1]])
    config = ClusteringConfig(num_clusters=2, sinkhorn_iterations=1, depth_weight=4.0)
    labels = cluster_joint_views(
        tokens, positions, first, config, depths, torch.ones_like(far)
    ).labels
    assert torch.equal(labels == labels[0, 1], far)


def test_all_tokens_identical() -> None:
    same = torch.ones(B, 2 * N, D)
    first = draw_first_tokens(None, B, 2 * N, K, 'cpu')
    assignment = cluster_joint_views(same, torch.zeros(B, 2 * N, 2), first, CONFIG)
    pool = ObjectPooling.from_assignment(assignment)
    objects = pool(same.view(B, 2, N, D).transpose(0, 1))
    assert torch.isfinite(objects).all()
    assert torch.allclose(objects, torch.ones_like(objects))


def test_image_without_valid_cluster_gives_no_object() -> None:
    tokens = torch.cat(
        [
            torch.ones(1, 4, 2) * torch.tensor([1.0, 0]),
            torch.ones(1, 4, 2) * torch.tensor([0, 1.0]),
        ],
        1,
    )
    positions = torch.cat([torch.zeros(1, 4, 2), torch.full((1, 4, 2), 1e3)], 1)
    positions += torch.arange(8.0)[None, :, None]
    config = ClusteringConfig(num_clusters=2, sinkhorn_iterations=1)
    assignment = cluster_joint_views(tokens, positions, torch.tensor([[0, 4]]), config)
    pool = ObjectPooling.from_assignment(assignment)
    assert not assignment.valid.any() and pool.per_image.tolist() == [0]
    assert pool(tokens.view(1, 2, 4, 2).transpose(0, 1)).shape == (2, 0, 2)


def test_more_clusters_than_tokens_is_a_clear_error() -> None:
    config = ClusteringConfig(num_clusters=9)
    first = draw_first_tokens(None, 1, 8, 9, 'cpu')
    with pytest.raises(ValueError, match=r'num_clusters=9 exceeds the 8 tokens'):
        cluster_joint_views(torch.randn(1, 8, 4), torch.rand(1, 8, 2), first, config)


@pytest.mark.parametrize(
    'change',
    [
        dict(num_clusters=0),
        dict(cost_scope='rank'),
        dict(rounds=0),
        dict(depth_cost='squared'),
        dict(depth_scale='batch'),
        dict(sinkhorn_lambda=0.0),
    ],
)
def test_bad_settings_name_the_value(change: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(change.values())))):
        ClusteringConfig(**change)


def test_per_image_cost_ignores_company_and_batch_cost_does_not() -> None:
    given_ = inputs()
    alone = {name: value[:1] for name, value in given_.items()}
    labels = cluster_joint_views(config=CONFIG, **given_).labels[:1]
    assert torch.equal(labels, cluster_joint_views(config=CONFIG, **alone).labels)
    batch = ClusteringConfig(**{**vars(CONFIG), 'cost_scope': 'batch'})
    moved = 0
    for seed in range(20):
        given_ = inputs(seed)
        given_['positions'][1:] *= 1e-3
        alone = {name: value[:1] for name, value in given_.items()}
        together = cluster_joint_views(config=batch, **given_).labels[:1]
        moved += not torch.equal(together, cluster_joint_views(config=batch, **alone).labels)
    assert moved > 0


def test_defaults_are_cribos() -> None:
    config = ClusteringConfig()
    assert (config.num_clusters, config.sinkhorn_iterations, config.rounds) == (32, 5, 5)
    assert (config.sinkhorn_lambda, config.position_weight, config.depth_weight) == (20, 1, 0)


def test_rescale_by_batch_and_by_image() -> None:
    cost = torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]], [[7.0, 7.0]]])
    assert rescale(cost, 'image').tolist() == [[[0, 1]], [[0, 1]], [[0, 0]]]
    expected = torch.tensor([[[0, 1]], [[2, 4]], [[6, 6]]]) / 6
    torch.testing.assert_close(rescale(cost, 'batch'), expected)


def test_half_tokens_are_clustered_in_single_precision() -> None:
    given_ = inputs()
    given_['tokens'] = given_['tokens'].half()
    labels = cluster_joint_views(config=with_depth(), **given_).labels
    given_['tokens'] = given_['tokens'].float()
    assert torch.equal(labels, cluster_joint_views(config=with_depth(), **given_).labels)


def test_depths_without_their_mask_are_refused() -> None:
    with pytest.raises(ValueError, match='has_depth'):
        cluster_joint_views(config=with_depth(), **{**inputs(), 'has_depth': None})


def test_a_term_of_ones_own_decides_where_it_is_large() -> None:
    """A cost against every cluster but the token's number modulo K."""
    wanted = (torch.arange(2 * N) % K).expand(B, -1)
    cost = 1e3 * (1 - torch.nn.functional.one_hot(wanted, K).double())
    assignment = cluster_joint_views(config=CONFIG, **inputs(), extra_terms=[lambda labels: cost])
    assert torch.equal(assignment.labels, wanted)


def test_first_tokens_depend_on_their_key_alone() -> None:
    whole = draw_first_tokens(torch.tensor([5, 6, 7]), 3, 50, 9, 'cpu')
    assert torch.equal(draw_first_tokens(torch.tensor([6]), 1, 50, 9, 'cpu')[0], whole[1])
    assert all(len(set(row.tolist())) == 9 for row in whole)


def test_nearest_member_against_the_definition() -> None:
    given_ = inputs(3)
    labels = torch.randint(0, K, (B, 2 * N))
    labels[:, 0] = K - 1
    pairs = pairwise_positions(given_['positions'])
    fast = nearest_member(pairs, labels, K)
    for image in range(B):
        for cluster in range(K):
            members = (labels[image] == cluster).nonzero().flatten()
            delta = given_['positions'][image][:, None] - given_['positions'][image][members]
            distance = delta.norm(dim=-1)
            distance[distance == 0] = torch.inf
            wanted = distance.amin(1) if len(members) else torch.full((2 * N,), torch.inf)
            torch.testing.assert_close(fast[image, :, cluster], wanted.double())


def test_sinkhorn_meets_its_columns_and_tends_to_its_rows() -> None:
    cost = torch.rand(2, 20, 5, dtype=torch.float64)
    column = torch.rand(2, 5, dtype=torch.float64)
    column /= column.sum(1, keepdim=True)
    errors = []
    for iterations in (1, 100):
        kernel, u, v = sinkhorn_scalings(cost, column, regularization=5.0, iterations=iterations)
        plan = u[:, :, None] * kernel * v[:, None, :]
        torch.testing.assert_close(plan.sum(1), column)
        errors.append(float((plan.sum(2) - 1 / 20).abs().max()))
        labels = hard_assignment(cost, column, regularization=5.0, iterations=iterations)
        assert torch.equal(labels, plan.argmax(2))
    assert errors[1] < 1e-6 < errors[0]


class _LargestTensor(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN202
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor) and value.untyped_storage().nbytes():
                storage = value.untyped_storage().nbytes() // value.element_size()
                self.elements = max(self.elements, storage)
        return out


def test_no_tensor_of_tokens_by_tokens_by_clusters() -> None:
    given_ = inputs()
    with _LargestTensor() as largest:
        cluster_joint_views(config=with_depth(), **given_)
    pairs = B * (2 * N) ** 2
    assert pairs <= largest.elements < 3 * pairs < pairs * K
