"""Joint-view clustering of CrOC and CrIBo, with S3PT's depth guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from s3pt_mm.method.clustering.costs import (
    depth_cost,
    measured_depths,
    nearest_member,
    pairwise_depths,
    pairwise_positions,
    position_cost,
    rescale,
    squared_depth_to_centroids,
)
from s3pt_mm.method.clustering.sinkhorn import hard_assignment


@dataclass(frozen=True)
class ClusteringConfig:
    """Settings of the clustering; the defaults are CrIBo's.

    Args:
        num_clusters: K (CrIBo 32, S3PT 128; supplement, Tables 2-3).
        sinkhorn_iterations: Row-column updates a round (CrIBo 5, S3PT 1).
        sinkhorn_lambda: Inverse temperature of the transport plan.
        position_weight: Weight of the position cost.
        depth_weight: Weight of the depth cost; 0 is CrIBo. Both weights may be tensors ().
        depth_cost: 'centroid_squared', S3PT's: squared difference to the mean depth of a cluster's
            members; or 'nearest', the position term's rule on depths (option of this package).
        depth_scale: 'image' divides the depth cost by its maximum in the image, as the position
            cost (choice of this package); 'none' leaves (square) metres.
        rounds: Outer rounds n.
        adaptive_prior: Column marginals follow the sizes of the last round's clusters, as in the
            reference; False keeps them uniform (option of this package).
        cost_scope: 'batch' rescales the cost by its extremes over the rank's batch, as the
            reference; 'image' makes an image's clusters independent of its company (option of
            this package).

    Raises:
        ValueError: For a value out of range, naming it.
    """

    num_clusters: int = 32
    sinkhorn_iterations: int = 5
    sinkhorn_lambda: float = 20.0
    position_weight: float | Tensor = 1.0
    depth_weight: float | Tensor = 0.0
    depth_cost: str = 'centroid_squared'
    depth_scale: str = 'image'
    rounds: int = 5
    adaptive_prior: bool = True
    cost_scope: str = 'batch'

    def __post_init__(self) -> None:
        for name in ('num_clusters', 'sinkhorn_iterations', 'rounds'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')
        for name, known in (
            ('cost_scope', ('batch', 'image')),
            ('depth_cost', ('centroid_squared', 'nearest')),
            ('depth_scale', ('image', 'none')),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        if self.sinkhorn_lambda <= 0:
            raise ValueError(f'sinkhorn_lambda must be positive, got {self.sinkhorn_lambda}')


@dataclass(frozen=True)
class Assignment:
    """Hard clusters of the joint tokens of two views.

    Attributes:
        labels: (B, 2N) int64 in [0, K); the first N columns are view 1.
        counts: (B, 2, K) tokens of each cluster in each view.
        size_spread: () what is logged of them: standard deviation over mean of the sizes of
            clusters that have a token.
    """

    labels: Tensor
    counts: Tensor
    size_spread: Tensor

    @classmethod
    def of(cls, labels: Tensor, counts: Tensor) -> Assignment:
        """With its figure for the log."""
        sizes = counts.sum(1).float()
        filled = sizes > 0
        count = filled.sum()
        mean = sizes.sum() / count
        variance = torch.where(filled, sizes - mean, 0.0).square().sum() / count
        return cls(labels, counts, variance.sqrt() / mean)

    @property
    def valid(self) -> Tensor:
        """(B, K) bool: clusters that have a token in both views."""
        return (self.counts > 0).all(dim=1)

    def weights(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(2, B, N, K): each cluster's column sums to 1 in a view that has it, else 0."""
        batch, views, clusters = self.counts.shape
        one_hot = F.one_hot(self.labels.view(batch, views, -1), clusters).to(dtype)
        return (one_hot / self.counts.clamp_min(1)[:, :, None, :]).transpose(0, 1)


@torch.no_grad()
def cluster_joint_views(
    tokens: Tensor,
    positions: Tensor,
    first_tokens: Tensor,
    config: ClusteringConfig,
    depths: Tensor | None = None,
    has_depth: Tensor | None = None,
    extra_terms: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Assignment:
    """Group the 2N tokens of two views of each image into at most K clusters.

    CrIBo, arXiv 2310.07855, section 3.2 (CrOC, 2303.13245); the depth term is S3PT's. Runs in
    float32 whatever autocast says, in float64 for float64 tokens.

    Args:
        tokens: (B, 2N, d) teacher tokens after the final norm, view 1 first, any scale.
        positions: (B, 2N, 2) source-image (x, y) of the tokens, pixels.
        first_tokens: (B, K) int64, distinct per image: tokens that are the first centroids.
        config: Settings.
        depths: (B, 2N) metres; ignored where ``has_depth`` is False. None is no LiDAR.
        has_depth: (B, 2N) bool.
        extra_terms: Further cost terms (docs/add_a_cost_term.md): each maps the labels (B, 2N) of
            the last round, K where a token is in no cluster yet, to a weighted cost (B, 2N, K).

    Raises:
        ValueError: If K exceeds 2N or shapes disagree, naming both.
    """
    batch, num_tokens, _ = tokens.shape
    clusters = config.num_clusters
    if clusters > num_tokens:
        raise ValueError(
            f'num_clusters={clusters} exceeds the {num_tokens} tokens of two views: '
            'use fewer clusters, smaller patches or larger crops'
        )
    if positions.shape != (batch, num_tokens, 2):
        raise ValueError(f'positions are {tuple(positions.shape)}, tokens {tuple(tokens.shape)}')
    if first_tokens.shape != (batch, clusters):
        raise ValueError(
            f'first_tokens are {tuple(first_tokens.shape)}, expected {(batch, clusters)}'
        )

    with torch.autocast(tokens.device.type, enabled=False):
        real = tokens.dtype if tokens.dtype == torch.float64 else torch.float32
        tokens = F.normalize(tokens.to(real), dim=-1)
        position, depth = _PositionTerm(positions.to(real), config), None
        if depths is not None and not _is_zero(config.depth_weight):
            if has_depth is None:
                raise ValueError('depths need has_depth: which of them were measured')
            depth = _DepthTerm(depths.to(real), has_depth, config)
        # Round 1 knows one member a cluster: the token that was drawn. K stands for no cluster.
        numbers = torch.arange(clusters, device=tokens.device)
        labels = first_tokens.new_full((batch, num_tokens), clusters)
        labels.scatter_(1, first_tokens, numbers.expand(batch, -1))
        members = (labels[:, :, None] == numbers).to(real)
        centroids = tokens.gather(1, first_tokens[:, :, None].expand(-1, -1, tokens.shape[2]))
        prior = tokens.new_full((batch, clusters), 1 / clusters)
        for _ in range(config.rounds):
            term, weight = _weighted(position(labels), config.position_weight)
            cost = torch.baddbmm(term, tokens, centroids.transpose(1, 2), beta=weight, alpha=-1)
            if depth is not None:
                term, weight = _weighted(depth(labels, members), config.depth_weight)
                cost.add_(term, alpha=weight)
            for extra in extra_terms:
                cost += extra(labels)
            labels = hard_assignment(
                rescale(cost, config.cost_scope),
                prior,
                regularization=config.sinkhorn_lambda,
                iterations=config.sinkhorn_iterations,
            )
            members = (labels[:, :, None] == numbers).to(real)
            if config.adaptive_prior:
                prior = members.sum(1).add_(1e-2).div_(num_tokens + 1e-2 * clusters)
            centroids = F.normalize(torch.bmm(members.transpose(1, 2), tokens), dim=-1)
        counts = members.view(batch, 2, num_tokens // 2, clusters).sum(2).long()
    return Assignment.of(labels, counts)


def _is_zero(weight: float | Tensor) -> bool:
    # A weight on a device is not asked: the host would wait.
    return not isinstance(weight, Tensor) and weight == 0


def _weighted(term: Tensor, weight: float | Tensor) -> tuple[Tensor, float]:
    """A term and the factor that whoever adds it still has to apply."""
    return (term.mul_(weight), 1.0) if isinstance(weight, Tensor) else (term, float(weight))


class _PositionTerm:
    def __init__(self, positions: Tensor, config: ClusteringConfig) -> None:
        # Distances do not change between rounds, their members do.
        self.pairwise = pairwise_positions(positions)
        self.clusters = config.num_clusters

    def __call__(self, labels: Tensor) -> Tensor:
        return position_cost(nearest_member(self.pairwise, labels, self.clusters))


class _DepthTerm:
    def __init__(self, depths: Tensor, has_depth: Tensor, config: ClusteringConfig) -> None:
        self.config = config
        if config.depth_cost == 'nearest':
            self.pairwise = pairwise_depths(depths, has_depth)
        else:
            self.depths = measured_depths(depths, has_depth)

    def __call__(self, labels: Tensor, members: Tensor) -> Tensor:
        if self.config.depth_cost == 'nearest':
            distances = nearest_member(self.pairwise, labels, self.config.num_clusters)
        else:
            distances = squared_depth_to_centroids(*self.depths, members)
        return depth_cost(distances, self.config.depth_scale)
