"""Running statistics of batch norm, the only buffers in which ranks differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def _buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules():
        if isinstance(module, _NormBase):
            yield from module.named_buffers(prefix, recurse=False)


def norm_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all running statistics, by name."""
    return {name: buffer.detach().clone() for name, buffer in _buffers(model)}


@torch.no_grad()
def restore_norm_buffers(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Put back what :func:`norm_buffers` returned; absent names are left as they are."""
    for name, buffer in _buffers(model):
        if name in saved:
            buffer.copy_(saved[name])
