"""The image-level term, and what is logged of its targets; collapse shows here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from s3pt_mm.method import distributed
from s3pt_mm.method.losses import (
    PrototypeLogits,
    cross_view_target,
    image_target,
    sliced_cross_entropy,
)
from s3pt_mm.method.losses.fused_slice import (
    SliceResult,
    Taught,
    fused_slice,
    product_logits,
)
from s3pt_mm.method.losses.prototype_logits import accumulate_log_probability, is_half


def teacher_health(log_p: Tensor) -> dict[str, Tensor]:
    """How peaked and how diverse the teacher's image-level targets are.

    Args:
        log_p: (n, P) log-probabilities of the targets.

    Returns:
        ``teacher_entropy``: mean entropy of a target, nats; log P when uniform, 0 when one-hot.
        ``teacher_kl_uniform``: KL of the batch-mean target to the uniform distribution, nats; log P
        when all images choose one prototype, 0 when the teacher is uniform.
    """
    p = log_p.exp()
    mean = p.mean(0)
    return dict(
        teacher_entropy=-(p * log_p).sum(1).mean(),
        teacher_kl_uniform=math.log(p.shape[1]) + torch.special.xlogy(mean, mean).sum(),
    )


def health_and_slice(
    products: Tensor, factor: Tensor, bias: Tensor | None, taught: Sequence[Taught]
) -> tuple[SliceResult, dict[str, Tensor]]:
    """:func:`~s3pt_mm.method.losses.fused_slice.fused_slice` of one target, and its health."""
    (teacher,) = taught
    logits = product_logits(teacher.products, teacher.factor, teacher.shift)
    health = teacher_health(torch.log_softmax(logits, 1))
    return fused_slice(products, factor, bias, taught), health


def image_term(
    student: PrototypeLogits,
    teacher: PrototypeLogits,
    shift: Tensor,
    *,
    images: int,
    num_crops: int,
    slice_rows: int,
    log_probability_sum: Tensor | None,
    forms: tuple[Callable | None, Callable, Callable],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of class tokens, and the health of its targets.

    Args:
        student: (num_crops * B) rows, crop-major.
        teacher: (2 B) rows of the global views, view-major.
        shift: (P,) of the teacher's logits: its centre.
        images: Of all ranks.
        num_crops: Crops of an image that the student sees.
        slice_rows: Rows at a time.
        log_probability_sum: (P,) of -inf that is filled for the centre, or None.
        forms: :func:`health_and_slice`, compiled, for two crops in half precision, or None;
            :func:`teacher_health`; and what ``sliced_cross_entropy`` calls ``unscale``.
    """
    fused, health_of, unscale = forms
    learns = student.features.requires_grad and is_half(student.features)
    ranks = distributed.world_size()
    if fused is not None and learns and num_crops == 2:
        health: dict[str, Tensor] = {}

        def fuse(*given: Any) -> SliceResult:
            result, found = fused(*given)
            health.update(found)
            return result

        target = cross_view_target(
            teacher,
            shift,
            global_objects=images,
            ranks=ranks,
            log_probability_sum=log_probability_sum,
        )
        rows = len(student.features)
        options: dict[str, Any] = dict(slice_rows=rows, fuse=fuse, unscale=unscale)
        return sliced_cross_entropy(student, [target], **options).loss, health
    # Two rows an image: these logits may exist as a whole, and everything reads them once.
    with torch.no_grad():
        logits = teacher.dense()
        log_p = torch.log_softmax(logits - shift, dim=1)
        if log_probability_sum is not None:
            accumulate_log_probability(log_probability_sum, logits)
        target = image_target(log_p.exp(), num_crops=num_crops, global_batch=images, ranks=ranks)
    loss = sliced_cross_entropy(student, [target], slice_rows=slice_rows, unscale=unscale).loss
    return loss, health_of(log_p)
