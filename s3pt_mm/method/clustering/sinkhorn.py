"""Entropic optimal transport in scaling-vector form."""

from __future__ import annotations

import torch
from torch import Tensor


def sinkhorn_scalings(
    cost: Tensor, column_marginal: Tensor, *, regularization: float, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale ``exp(-lambda M)`` towards uniform rows and the given columns.

    The plan is ``diag(u) E diag(v)``; only the vectors change, so an iteration is two matrix-
    vector products and the (B, T, K) kernel is written once. As in the reference the columns are
    scaled last: they are met exactly, the rows only as well as the iterations allow.

    Args:
        cost: (B, T, K) in [0, 1].
        column_marginal: (B, K), rows of sum 1.
        regularization: lambda, the inverse temperature.
        iterations: Row-then-column updates, at least 1.

    Returns:
        Kernel E (B, T, K), row scalings u (B, T), column scalings v (B, K).
    """
    kernel = torch.exp(cost * -regularization)
    row_marginal = 1.0 / kernel.shape[1]
    columns = column_marginal[:, :, None]
    u = row_marginal / kernel.sum(2, keepdim=True)  # the columns' scalings begin as ones
    v = columns / torch.bmm(kernel.transpose(1, 2), u)
    for _ in range(iterations - 1):
        u = row_marginal / torch.bmm(kernel, v)
        v = columns / torch.bmm(kernel.transpose(1, 2), u)
    return kernel, u.squeeze(2), v.squeeze(2)


def hard_assignment(
    cost: Tensor, column_marginal: Tensor, *, regularization: float, iterations: int
) -> Tensor:
    """(B, T) the column that holds most of each row of the Sinkhorn plan.

    A row's own scaling does not move its maximum, so the plan itself is never formed. A tie goes to
    the lower column (the reference's ``==`` with the maximum gives it to both).
    """
    kernel, _, v = sinkhorn_scalings(
        cost, column_marginal, regularization=regularization, iterations=iterations
    )
    return kernel.mul_(v[:, None, :]).argmax(dim=2)
