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
    distances = torch.hypot(delta[..., 0], delta[..., 1])
    return distances.masked_fill_(distances == 0, torch.inf)


def pairwise_depths(depths: Tensor, has_depth: Tensor) -> Tensor:
    """(B, T), (B, T) bool -> (B, T, T) absolute differences, metres.

    inf where one of the two has no depth and for a token with itself; two tokens of exactly the
    same depth, as a surface has in both views, are a match and stay at 0.
    """
    known = has_depth[:, :, None] & has_depth[:, None, :]
    known &= ~torch.eye(depths.shape[1], dtype=torch.bool, device=depths.device)
    return (depths[:, :, None] - depths[:, None, :]).abs_().masked_fill_(~known, torch.inf)


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


def measured_depths(depths: Tensor, has_depth: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`squared_depth_to_centroids` asks of depths (B, T), anything where there is none.

    Returns:
        (B, T) depths, inf where there is none; (B, T, 2) depth and 1, or 0 and 0 there.
    """
    there = depths.masked_fill(~has_depth, torch.inf)
    return there, torch.stack([depths.masked_fill(~has_depth, 0.0), has_depth.to(depths)], dim=2)


def squared_depth_to_centroids(there: Tensor, counted: Tensor, members: Tensor) -> Tensor:
    """S3PT's depth term, ``|d_i - d_j|^2`` of token i and the centroid of cluster j.

    The formula is known at second hand, from a page that restates the paper's method section. What
    a centroid's depth is stays open there: here the mean of the members, of both views, that have
    a depth (choice of this package).

    Args:
        there: (B, T) of :func:`measured_depths`, metres (or log metres).
        counted: (B, T, 2) of it.
        members: (B, T, K) 1 where a token is in a cluster, else 0.

    Returns:
        (B, T, K) square metres; inf where the token or every member lacks a depth.
    """
    # Sums, not a product of matrices: TF32 would round metres to three digits.
    sums, counts = (members[:, :, None, :] * counted[..., None]).sum(1).unbind(1)
    # A cluster without depth lies at -inf: infinitely far from all, from the unmeasured at inf too.
    means = (sums / counts).nan_to_num_(nan=-torch.inf)
    return (there[:, :, None] - means[:, None, :]).square_()


def depth_cost(distances: Tensor, scale: str = 'image') -> Tensor:
    """Finish a depth term (choices of this package): fill what is unknown, then scale.

    Args:
        distances: (B, T, K) of tokens and clusters, inf where a depth is missing on either side.
        scale: 'image' divides by the image's maximum, as the position term; 'none' does not.

    Returns:
        (B, T, K): an unknown entry is the mean of the image's known ones, so that it favours no
        cluster; an image without any return costs 0 everywhere, which is CrIBo.
    """
    known = distances < torch.inf
    cost = distances.masked_fill(~known, 0.0)
    count = known.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    cost = torch.where(known, cost, cost.sum(dim=(1, 2), keepdim=True) / count)
    return _divide_by_maximum(cost) if scale == 'image' else cost


def _divide_by_maximum(cost: Tensor) -> Tensor:
    return cost.div_(_over_zero(cost.amax(dim=(1, 2), keepdim=True)))


def _over_zero(span: Tensor) -> Tensor:
    """What divides numbers that are all 0 where ``span`` is: in one kernel."""
    return span.clamp_min_(torch.finfo(span.dtype).tiny)


def rescale(cost: Tensor, scope: str) -> Tensor:
    """Shift and scale a cost to [0, 1] over the whole 'batch' (the reference) or per 'image'."""
    if scope == 'batch':
        low, high = torch.aminmax(cost)
    else:
        low, high = (end[..., None] for end in torch.aminmax(cost.flatten(1), dim=1, keepdim=True))
    return cost.sub(low).div_(_over_zero(high - low))
