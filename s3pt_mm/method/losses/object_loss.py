"""Object-level terms: across the two views, and across images through the memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from s3pt_mm.method.losses.prototype_logits import PrototypeLogits, accumulation_dtype
from s3pt_mm.method.losses.target import Target


def cross_view_target(
    teacher: PrototypeLogits,
    center: Tensor,
    *,
    global_objects: float,
    ranks: int = 1,
    log_probability_sum: Tensor | None = None,
) -> Target:
    """The teacher's object of view a teaches the student's same object of view b, both ways.

    Args:
        teacher: 2 n rows: the n objects of view 1, then those of view 2. The student's rows have
            the same order.
        center: (P,) shift of the teacher's logits.
        global_objects: n summed over ranks.
        ranks: World size.
        log_probability_sum: Filled as a by-product (:class:`Target`).

    Returns:
        A target whose weighted sum is the mean of the two directions, each averaged over its
        objects.
    """
    features = teacher.features
    other_view = replace(teacher, features=features.roll(len(features) // 2, dims=0))
    rows = torch.arange(len(features))
    coefficients = features.new_full(
        (len(features),),
        ranks / (2 * max(global_objects, 1)),
        dtype=accumulation_dtype(features),
    )
    return Target(
        other_view,
        rows,
        coefficients,
        center=center,
        log_probability_sum=log_probability_sum,
    )


def cross_image_target(
    teacher: PrototypeLogits,
    center: Tensor,
    *,
    consistent_view1: Tensor,
    consistent_view2: Tensor,
    global_counts: Tensor,
    ranks: int = 1,
) -> Target:
    """The neighbour (view a) of a cycle-consistent object teaches the student's object of view b.

    Each direction is divided by its own count (choice of this package; the reference divides both
    by the first one's). A direction without any such object contributes 0.

    Args:
        teacher: Rows of the neighbours of view 1's consistent objects, then of view 2's.
        center: (P,) shift of the teacher's logits; neighbours never move it.
        consistent_view1: (n,) bool, on the host.
        consistent_view2: (n,) bool, on the host.
        global_counts: (2,) numbers of consistent objects of view 1 and view 2 over all ranks, on
            the teacher's device.
        ranks: World size.
    """
    objects = len(consistent_view1)
    first = consistent_view1.nonzero().squeeze(1) + objects  # teach view 2's rows
    second = consistent_view2.nonzero().squeeze(1)  # teach view 1's rows
    dtype = accumulation_dtype(teacher.features)
    weights = ranks / (2 * global_counts.to(dtype).clamp_min(1))
    coefficients = torch.cat(
        [weight.expand(len(rows)) for weight, rows in zip(weights, (first, second), strict=True)]
    )
    return Target(teacher, torch.cat([first, second]), coefficients, center=center)
