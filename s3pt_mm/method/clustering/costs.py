"""Cost terms of the joint-view clustering. Pure functions, float32."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_positions(positions: Tensor) -> Tensor:
    """(B, T, 2) -> (B, T, T) Euclidean distances, pixels; inf where two tokens coincide.

    A member at distance 0 never counts (method: nearest *other-position* token), and infinity
    removes it from every later minimum at no cost.
    """
    # Differences, not the |a|^2 - 2ab + |b|^2 expansion: coincident tokens must be exactly 0.
    delta = positions[:, :, None, :] - positions[:, None, :, :]
    return _without_zeros(torch.hypot(delta[..., 0], delta[..., 1]))


def pairwise_depths(depths: Tensor, has_depth: Tensor) -> Tensor:
    """(B, T), (B, T) bool -> (B, T, T) absolute differences, metres; inf where one has no depth."""
    difference = _without_zeros((depths[:, :, None] - depths[:, None, :]).abs_())
    known = has_depth[:, :, None] & has_depth[:, None, :]
    return difference.masked_fill_(~known, torch.inf)


def _without_zeros(distances: Tensor) -> Tensor:
    return distances.masked_fill_(distances == 0, torch.inf)


def nearest_member(pairwise: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    """Distance of each token to the nearest member of each cluster.

    The assignment is hard, so this is a scatter-minimum of the (T, T) distances over their
    members: nothing of size (T, T, K) exists.

    Args:
        pairwise: (B, T, T), symmetric, inf where a member does not count.
        labels: (B, T) int64 cluster of each token; a label of ``num_clusters`` is no cluster.
        num_clusters: K.

    Returns:
        (B, T, K); inf where a cluster has no member that counts.
    """
    batch, tokens, _ = pairwise.shape
    nearest = pairwise.new_full((batch, num_clusters + 1, tokens), torch.inf)
    index = labels[:, :, None].expand(-1, -1, tokens)
    nearest.scatter_reduce_(1, index, pairwise, reduce='amin', include_self=True)
    return nearest[:, :num_clusters].transpose(1, 2)


def position_cost(nearest: Tensor) -> Tensor:
    """Finish the position term (CrIBo): fill what is empty and scale to at most 1 in each image.

    Args:
        nearest: (B, T, K) from :func:`nearest_member`, pixels.

    Returns:
        (B, T, K): an entry without member is the image's mean cost (its zeros included), and all
        are divided by the image's maximum. Identical positions everywhere give 0.
    """
    missing = torch.isinf(nearest)
    cost = nearest.masked_fill(missing, 0.0)
    mean = cost.mean(dim=(1, 2), keepdim=True)
    cost = torch.where(missing, mean, cost)
    return _divide_by_maximum(cost)


def depth_cost(nearest: Tensor, members_with_depth: Tensor, has_depth: Tensor) -> Tensor:
    """Finish the depth term of S3PT (choice of this package; the paper gives no formula).

    The position rule on |depth difference|, taken over tokens and clusters that have a return: an
    entry that is exactly 0 becomes the mean of those, and so does every pair that lacks
    a return on either side. Divided by the image's maximum; an image without any return costs 0.

    Args:
        nearest: (B, T, K) metres, from :func:`nearest_member` on :func:`pairwise_depths`.
        members_with_depth: (B, K) bool, clusters with a member that has depth.
        has_depth: (B, T) bool.

    Returns:
        (B, T, K) in [0, 1].
    """
    known = has_depth[:, :, None] & members_with_depth[:, None, :]
    missing = torch.isinf(nearest)
    cost = nearest.masked_fill(missing, 0.0)
    count = known.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    mean = cost.sum(dim=(1, 2), keepdim=True) / count
    cost = torch.where(missing, mean, cost)
    return _divide_by_maximum(cost)


def _divide_by_maximum(cost: Tensor) -> Tensor:
    maximum = cost.amax(dim=(1, 2), keepdim=True)
    return cost / torch.where(maximum > 0, maximum, torch.ones_like(maximum))


def rescale(cost: Tensor, scope: str) -> Tensor:
    """Shift and scale a cost to [0, 1] over the whole 'batch' (the reference) or per 'image'."""
    dims = (0, 1, 2) if scope == 'batch' else (1, 2)
    low, high = cost.amin(dims, keepdim=True), cost.amax(dims, keepdim=True)
    span = high - low
    return (cost - low) / torch.where(span > 0, span, torch.ones_like(span))
