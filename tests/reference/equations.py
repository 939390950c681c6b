"""Dense forms of clustering, memory and losses, written from the papers' equations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest(distances: Tensor, members: Tensor) -> Tensor:
    """(T, T) distances, (T, K) bool members -> (T, K) smallest non-zero distance, 0 without one."""
    dense = distances[:, :, None].expand(-1, -1, members.shape[1])
    dense = dense.masked_fill(~(members[None] & (dense > 0)), math.inf).amin(1)
    return dense.masked_fill(dense.isinf(), 0.0)


def position_cost(xy: Tensor, members: Tensor) -> Tensor:
    """(T, 2) pixels -> (T, K): zeros become the mean, then the maximum becomes 1."""
    cost = nearest((xy[:, None] - xy[None]).pow(2).sum(-1).sqrt(), members)
    cost = torch.where(cost == 0, cost.mean(), cost)
    return cost / cost.max() if cost.max() > 0 else cost


def depth_cost(
    depth: Tensor, has: Tensor, members: Tensor, rule: str = 'centroid_squared', scaled: bool = True
) -> Tensor:
    """(T,) metres -> (T, K), cluster by cluster; what is unknown costs the known ones' mean.

    Rules: squared difference to the mean of the members with depth, or the smallest difference to
    another member.
    """
    tokens, clusters = members.shape
    cost = depth.new_full((tokens, clusters), math.nan)
    for k in range(clusters):
        inside = depth[members[:, k] & has]
        if rule == 'centroid_squared' and len(inside):
            cost[:, k] = (depth - inside.mean()) ** 2
        for i in range(tokens) if rule == 'nearest' else ():
            others = depth[members[:, k] & has & (torch.arange(tokens) != i)]
            if len(others):
                cost[i, k] = (depth[i] - others).abs().min()
    cost[~has] = math.nan
    known = ~cost.isnan()
    mean = cost[known].mean() if known.any() else cost.new_zeros(())
    cost = torch.where(known, cost, mean)
    return cost / cost.max() if scaled and cost.max() > 0 else cost


def sinkhorn_plan(cost: Tensor, columns: Tensor, strength: float, iterations: int) -> Tensor:
    """(T, K) plan: rows to 1/T, then columns, the plan itself rescaled each time."""
    plan = torch.exp(-strength * cost)
    for _ in range(iterations):
        plan = plan / plan.sum(1, keepdim=True) / len(plan)
        plan = plan * (columns / plan.sum(0))[None]
    return plan


def cluster(
    tokens: Tensor,
    xy: Tensor,
    first: Tensor,
    *,
    iterations: int,
    depth: Tensor | None = None,
    has: Tensor | None = None,
    depth_weight: float = 0.0,
    position_weight: float = 1.0,
    strength: float = 20.0,
    rounds: int = 5,
    depth_rule: str = 'centroid_squared',
    depth_scaled: bool = True,
    adaptive_prior: bool = True,
) -> Tensor:
    """(B, T, d) tokens, (B, K) first tokens -> (B, T, K) bool; cost rescaled over the batch."""
    batch, clusters = first.shape
    tokens = F.normalize(tokens, dim=-1)
    members = torch.zeros(batch, tokens.shape[1], clusters, dtype=torch.bool)
    for b in range(batch):
        for k in range(clusters):
            members[b, first[b, k], k] = True
    centroids = torch.stack([tokens[b, first[b]] for b in range(batch)])
    prior = tokens.new_full((batch, clusters), 1 / clusters)
    for _ in range(rounds):
        costs = []
        for b in range(batch):
            cost = -tokens[b] @ centroids[b].T + position_weight * position_cost(xy[b], members[b])
            if depth_weight:
                term = depth_cost(depth[b], has[b], members[b], depth_rule, depth_scaled)
                cost = cost + depth_weight * term
            costs.append(cost)
        cost = torch.stack(costs)
        cost = (cost - cost.min()) / (cost.max() - cost.min())
        plans = [sinkhorn_plan(cost[b], prior[b], strength, iterations) for b in range(batch)]
        members = F.one_hot(torch.stack(plans).argmax(2), clusters).bool()
        if adaptive_prior:
            prior = members.sum(1) + 0.01
            prior = prior.to(tokens) / prior.sum(1, keepdim=True)
        centroids = F.normalize(members.to(tokens).transpose(1, 2) @ tokens, dim=-1)
    return members


def pool(tokens: Tensor, members: Tensor) -> list[Tensor]:
    """(2, B, N, d), (B, 2N, K) -> per image (2, n_b, d) means of clusters seen in both views."""
    half, objects = members.shape[1] // 2, []
    for b, image in enumerate(members):
        sides = image[:half], image[half:]
        valid = [k for k in range(image.shape[1]) if all(side[:, k].any() for side in sides)]
        means = [tokens[v, b][sides[v][:, k]].mean(0) for v in (0, 1) for k in valid]
        objects.append(torch.stack(means).unflatten(0, (2, -1)) if valid else tokens[:, b, :0])
    return objects


def neighbour_indices(objects: Tensor, memory: Tensor, view: int) -> tuple[Tensor, Tensor]:
    """(2, n, d), (2, m, d) -> index in the memory (n,) and cycle-consistent (n,)."""
    held, own = F.normalize(memory, dim=-1), F.normalize(objects, dim=-1)
    found, consistent = [], []
    for i in range(objects.shape[1]):
        found.append(int((held[view] @ own[view, i]).argmax()))
        back = held[1 - view, found[-1]]
        consistent.append(int((own[1 - view] @ back).argmax()) == i)
    return torch.tensor(found), torch.tensor(consistent)


def neighbours(objects: Tensor, memory: list[Tensor], view: int) -> tuple[Tensor, Tensor]:
    """(2, n, d) and a list, newest image first -> neighbours (n, d) and cycle-consistent (n,)."""
    held = torch.cat(memory, dim=1)
    found, consistent = neighbour_indices(objects, held, view)
    return held[view, found], consistent


def vmf_log_normalizer(kappa: Tensor, dimension: int) -> Tensor:
    """Uniform large-order expansion with its first correction (DLMF 10.41.3)."""
    nu = dimension / 2 - 1
    s = (nu**2 + kappa**2).sqrt()
    t = nu / s
    log_bessel_over_power = s - nu * (nu + s).log() - 0.5 * (2 * math.pi * s).log()
    correction = torch.log1p((3 * t - 5 * t**3) / (24 * nu))
    return -log_bessel_over_power - dimension / 2 * math.log(2 * math.pi) - correction


def cross_entropy(teacher: Tensor, student_logits: Tensor) -> Tensor:
    """Mean over rows of the dense (n, P) cross-entropy; 0 without rows."""
    rows = -(teacher * student_logits.log_softmax(1)).sum(1)
    return rows.sum() / max(len(rows), 1)


def multicrop_loss(teacher: Sequence[Tensor], student_logits: Sequence[Tensor]) -> Tensor:
    """Mean over all pairs of a teacher's view (probabilities) and another crop (logits)."""
    pairs = [(a, b) for a in range(len(student_logits)) for b in (0, 1) if a != b]
    return sum(cross_entropy(teacher[b], student_logits[a]) for a, b in pairs) / len(pairs)


def moved_center(center: Tensor, logits: Tensor, momentum: float, vmf: bool = False) -> Tensor:
    """Running mean of the teacher's (n, P) logits, or of its probabilities, in the log domain."""
    new = logits.softmax(1).mean(0).log() if vmf else logits.mean(0)
    return momentum * center + (1 - momentum) * new
