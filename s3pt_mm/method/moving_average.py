"""The teacher follows the student."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.sgd import sgd


@torch.no_grad()
def follow(
    teachers: list[Tensor], students: list[Tensor], step: float, refused: Tensor | None = None
) -> None:
    """``teacher <- teacher + step (student - teacher)``, in place, all at once.

    Args:
        teachers: Any shapes.
        students: The same shapes.
        step: 1 less the momentum, in [0, 1].
        refused: () or (1,) on the device: above 0 nothing moves, and the host need not know.
    """
    if refused is None:
        torch._foreach_lerp_(teachers, students, step)
        return
    # Descent along a gradient of -student under a weight decay of 1: of torch's fused kernels for
    # many tensors the one that reads such a flag itself.
    sgd(
        teachers,
        students,
        [None] * len(teachers),
        fused=True,
        found_inf=refused,
        lr=step,
        weight_decay=1.0,
        maximize=True,
        momentum=0.0,
        dampening=0.0,
        nesterov=False,
    )
