"""What is logged of the teacher's image-level targets; collapse shows here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from s3pt_mm.method.losses.fused_slice import SliceResult, Taught, fused_slice


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
    products: Tensor,
    factor: Tensor,
    bias: Tensor | None,
    taught: Sequence[Taught],
    wants_columns: Sequence[bool],
) -> tuple[SliceResult, dict[str, Tensor]]:
    """:func:`~s3pt_mm.method.losses.fused_slice.fused_slice` of one target, and its health."""
    (teacher,) = taught
    logits = teacher.products.float() * teacher.factor
    logits = logits if teacher.shift is None else logits + teacher.shift
    health = teacher_health(torch.log_softmax(logits, 1))
    return fused_slice(products, factor, bias, taught, wants_columns), health
