"""Between host and accelerator without making either wait."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A host tensor on ``device``; the host does not wait for the copy (CUDA: pinned memory).

    The caching host allocator keeps the pinned block until the copy is through.
    """
    device = torch.device(device)
    if device.type == 'cuda' and tensor.device.type == 'cpu':
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=tensor.device.type == 'cpu')


def read(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scalars of any device as scalars on the host, with one wait for all of them."""
    remote = {name: value for name, value in values.items() if value.device.type != 'cpu'}
    if not remote:
        return values
    here = torch.stack([value.detach().float() for value in remote.values()]).cpu()
    return {**values, **dict(zip(remote, here.unbind(), strict=True))}
