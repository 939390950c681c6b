"""Object-level terms: across the two views, and across images through the memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from s3pt_mm.method.losses.prototype_logits import PrototypeLogits, accumulation_dtype
from s3pt_mm.method.losses.sliced_cross_entropy import Target


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
    rows = torch.arange(len(features), device=features.device)
    coefficients = _constant(rows, ranks / (2 * max(global_objects, 1)), teacher)
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
    global_counts: tuple[float, float],
    ranks: int = 1,
) -> Target:
    """The neighbour (view a) of a cycle-consistent object teaches the student's object of view b.

    Each direction is divided by its own count (choice of this package; the reference divides both
    by the first one's). A direction without any such object contributes 0.

    Args:
        teacher: Rows of the neighbours of view 1's consistent objects, then of view 2's.
        center: (P,) shift of the teacher's logits; neighbours never move it.
        consistent_view1: (n,) bool.
        consistent_view2: (n,) bool.
        global_counts: Numbers of consistent objects of view 1 and view 2 over all ranks.
        ranks: World size.
    """
    objects = len(consistent_view1)
    first = consistent_view1.nonzero().squeeze(1) + objects  # teach view 2's rows
    second = consistent_view2.nonzero().squeeze(1)  # teach view 1's rows
    coefficients = torch.cat(
        [
            _constant(rows, ranks / (2 * max(count, 1)), teacher)
            for rows, count in zip((first, second), global_counts, strict=False)
        ]
    )
    return Target(teacher, torch.cat([first, second]), coefficients, center=center)


def _constant(rows: Tensor, value: float, teacher: PrototypeLogits) -> Tensor:
    """One coefficient a row, as precise as the loss: float64 for float64 features."""
    return torch.full(
        rows.shape, value, device=rows.device, dtype=accumulation_dtype(teacher.features)
    )
