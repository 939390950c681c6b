"""The few collectives that the method needs; without a process group each is the identity."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed
from mmengine import dist
from torch import Tensor

from s3pt_mm.common.host import fetch


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum over ranks; a new tensor, no gradient."""
    return start_sum(tensor)()


def start_sum(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin :func:`sum_over_ranks`; the function that is returned waits and gives the sum."""
    tensor = tensor.detach().clone()
    if dist.get_world_size() == 1:
        return lambda: tensor
    work = torch.distributed.all_reduce(tensor, async_op=True)

    def wait() -> Tensor:
        work.wait()
        return tensor

    return wait


def start_logaddexp(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin ``log(sum_ranks(exp(tensor)))``, elementwise and safe for -inf; the result waits."""
    tensor = tensor.detach().contiguous()
    if dist.get_world_size() == 1:
        return lambda: tensor
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    work = torch.distributed.all_gather(parts, tensor, async_op=True)

    def wait() -> Tensor:
        work.wait()
        return torch.logsumexp(torch.stack(parts), dim=0)

    return wait


def sizes_of_ranks(size: int, device: torch.device | str) -> list[int]:
    """Every rank's number, in rank order; with several ranks the host waits for the device."""
    return start_sizes(size, device)()


def start_sizes(size: int, device: torch.device | str) -> Callable[[], list[int]]:
    """Begin :func:`sizes_of_ranks`; the function that is returned waits and gives the numbers."""
    if dist.get_world_size() == 1:
        return lambda: [size]
    sizes = fetch(torch.cat(dist.all_gather(torch.full((1,), size, device=device))))
    return lambda: sizes().tolist()


def gather_ragged(tensor: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate every rank's rows in rank order; ranks may hold different numbers of rows.

    Args:
        tensor: (n, ...) this rank's rows; n may be 0 and may differ between ranks.
        sizes: n of every rank (:func:`sizes_of_ranks`).

    Returns:
        (sum of n, ...) all rows, without gradient.
    """
    tensor = tensor.detach()
    if len(sizes) == 1:
        return tensor
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = dist.all_gather(padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


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
