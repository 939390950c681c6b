"""Whether a run's state is worth keeping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from s3pt_mm.common.models import unwrap


def non_finite(runner: Runner) -> list[str]:
    """Names of a run's tensors that hold NaN or infinity: weights, buffers, moments, gradients.

    One synchronisation a device.
    """
    names: list[str] = []
    flags: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor in _tensors(runner):
        if tensor.is_floating_point() and tensor.numel():
            # Not isfinite(tensor).all(): a queue of a gigabyte would need as many flags.
            extremes = torch.stack(torch.aminmax(tensor.detach()))
            flags.setdefault(tensor.device, []).append((name, extremes.isfinite().all()))
    for found in flags.values():
        good = torch.stack([flag for _, flag in found]).tolist()
        names += [name for (name, _), fine in zip(found, good, strict=True) if not fine]
    return names


def _tensors(runner: Runner) -> Iterator[tuple[str, Tensor]]:
    model = unwrap(runner.model)
    yield from model.state_dict().items()
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        if parameter.grad is not None:
            yield f'gradient of {name}', parameter.grad
    names = {id(parameter): name for name, parameter in named.items()}
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper):
        return  # a config still, or none: this run only validates
    several = isinstance(wrapper, OptimWrapperDict)
    wrappers: Iterable[Any] = wrapper.values() if several else [wrapper]
    for one in wrappers:
        for parameter, state in one.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f'{key} of {names.get(id(parameter), "a parameter")}', value
