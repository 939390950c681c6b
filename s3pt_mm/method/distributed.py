"""The few collectives that the method needs; without a process group each is the identity."""

from __future__ import annotations

import torch
import torch.distributed
from mmengine import dist
from torch import Tensor


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum over ranks; a new tensor, no gradient."""
    tensor = tensor.detach().clone()
    dist.all_reduce(tensor, op='sum')
    return tensor


def logaddexp_over_ranks(tensor: Tensor) -> Tensor:
    """``log(sum_ranks(exp(tensor)))`` elementwise, safe for -inf."""
    if dist.get_world_size() == 1:
        return tensor
    return torch.logsumexp(torch.stack(dist.all_gather(tensor.contiguous())), dim=0)


def gather_ragged(tensor: Tensor) -> tuple[Tensor, list[int]]:
    """Concatenate every rank's rows in rank order; ranks may hold different numbers of rows.

    Args:
        tensor: (n, ...) this rank's rows; n may be 0 and may differ between ranks.

    Returns:
        (sum of n, ...) all rows, without gradient, and the number of rows of each rank.
    """
    tensor = tensor.detach()
    if dist.get_world_size() == 1:
        return tensor, [len(tensor)]
    sizes = [
        int(size) for size in dist.all_gather(torch.tensor([len(tensor)], device=tensor.device))
    ]
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = dist.all_gather(padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=False)]), sizes


def global_value(local: Tensor) -> Tensor:
    """Give a rank's share of a loss the value of the mean over ranks, keeping its own gradient.

    DDP averages gradients, so each rank backpropagates ``world_size * local_sum / global_count``;
    what is logged should nevertheless be the one number that all ranks share.
    """
    if dist.get_world_size() == 1:
        return local
    mean = sum_over_ranks(local) / dist.get_world_size()
    return local + (mean - local.detach())


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size()


def rank() -> int:
    """This process's rank, 0 without a process group."""
    return dist.get_rank()
