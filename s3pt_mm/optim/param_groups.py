"""Two parameter groups and, where the recipe asks for it, clipping tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn


@torch.no_grad()
def clip_each_tensor(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale each tensor's gradient to at most ``max_norm`` by itself, as DINO's public code does.

    Args:
        parameters: Tensors with gradients; changed in place.
        max_norm: Largest L2 norm of any one gradient.

    Returns:
        () the largest norm before clipping, for the log.
    """
    gradients = [parameter.grad for parameter in parameters]
    norms = torch.stack(torch._foreach_norm(gradients))
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
    return norms.max()


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PretrainOptimConstructor(DefaultOptimWrapperConstructor):
    """Decayed parameters in one group, biases and other 1-d tensors without decay in another.

    mmengine's default makes a group of every parameter, which turns each optimiser step into
    hundreds of small ones. Class token, position embedding and prototype gains have more than one
    dimension and are decayed, as in DINO. Parameters without gradient (the teacher's) are left out.

    Args (in ``paramwise_cfg``):
        clip: 'global' reads ``clip_grad`` as the norm of all gradients together, 'each_tensor' as
            the norm of each parameter's gradient by itself (DINO, CrIBo and S3PT).
    """

    def _validate_cfg(self) -> None:
        clip = self.paramwise_cfg.get('clip', 'global')
        if clip not in ('global', 'each_tensor'):
            raise ValueError(f"paramwise_cfg.clip must be 'global' or 'each_tensor', got {clip!r}")
        unknown = set(self.paramwise_cfg) - {'clip'}
        if unknown:
            raise ValueError(
                f'PretrainOptimConstructor does not know paramwise_cfg {sorted(unknown)}'
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Optimiser wrapper of a model."""
        # The base class builds groups only where paramwise_cfg is not empty.
        self.paramwise_cfg = {'clip': 'global', **self.paramwise_cfg}
        wrapper = super().__call__(model)
        if self.paramwise_cfg['clip'] == 'each_tensor':
            wrapper.clip_func = clip_each_tensor
        return wrapper

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Put the parameters of a module into their groups."""
        decayed, free = [], []
        for parameter in module.parameters():
            if parameter.requires_grad:
                (free if parameter.ndim <= 1 else decayed).append(parameter)
        params.append(dict(params=decayed))
        params.append(dict(params=free, weight_decay=0.0))
