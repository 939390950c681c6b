"""Two parameter groups and, where the recipe asks for it, clipping tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
    return norms.max()


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PretrainOptimConstructor(DefaultOptimWrapperConstructor):
    """Decayed parameters in one group, biases and other 1-d tensors without decay in another.

    Each key of ``custom_keys`` adds up to two groups, with its own learning rate.

    mmengine's default makes a group of every parameter, which turns each optimiser step into
    hundreds of small ones. Class token, position embedding and prototype gains have more than one
    dimension and are decayed, as in DINO. Parameters without gradient (the teacher's) are left out.

    Args (in ``paramwise_cfg``):
        clip: 'global' reads ``clip_grad`` as the norm of all gradients together, 'each_tensor' as
            the norm of each parameter's gradient by itself (DINO, CrIBo and S3PT).
        custom_keys: Part of a parameter's name -> ``dict(lr_mult=...)``, mmengine's form; of
            several keys in one name the longest counts. Default: none.
        layer_decay_rate: Each layer of a backbone learns at so much of the rate of the next one
            (its ``get_layer_depth`` counts them; heads learn at the full rate): for weights that
            are trained already. Default: 1.

    Raises:
        ValueError: For another ``clip``, another entry of ``paramwise_cfg`` or of a key, or a key
            that no trained parameter has in its name.
    """

    paramwise_cfg: dict

    def _validate_cfg(self) -> None:
        clip = self.paramwise_cfg.get('clip', 'global')
        if clip not in ('global', 'each_tensor'):
            raise ValueError(f"paramwise_cfg.clip must be 'global' or 'each_tensor', got {clip!r}")
        unknown = set(self.paramwise_cfg) - {'clip', 'custom_keys', 'layer_decay_rate'}
        if unknown:
            raise ValueError(
                f'PretrainOptimConstructor does not know paramwise_cfg {sorted(unknown)}'
            )
        for key, options in self.paramwise_cfg.get('custom_keys', {}).items():
            if set(options) != {'lr_mult'}:
                raise ValueError(
                    f'paramwise_cfg.custom_keys[{key!r}] must be dict(lr_mult=...), got {options}'
                )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Optimiser wrapper of a model."""
        # The base class builds groups only where paramwise_cfg is not empty.
        self.paramwise_cfg = {'clip': 'global', **self.paramwise_cfg}
        wrapper = super().__call__(model)
        if self.paramwise_cfg['clip'] == 'each_tensor':
            wrapper.clip_func = clip_each_tensor
        return wrapper

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: Any) -> None:
        """Put the parameters of a module into their groups."""
        custom = self.paramwise_cfg.get('custom_keys', {})
        depth = _layer_scales(module, self.paramwise_cfg.get('layer_decay_rate', 1.0))
        # The empty key is in every name: what no other key claims keeps the base rate.
        members: dict[tuple[str, float], list[nn.Parameter]] = {('', 1.0): []}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                key = max((key for key in ('', *custom) if key in name), key=len)
                members.setdefault((key, depth.get(name, 1.0)), []).append(parameter)
        for key in custom:
            if not any(key == used for used, _ in members):
                raise ValueError(
                    f'paramwise_cfg.custom_keys: no trained parameter has {key!r} in its name'
                )
        for (key, scale), parameters in members.items():
            scale *= custom[key]['lr_mult'] if key else 1.0
            rate = dict(lr=self.base_lr * scale) if key or scale != 1.0 else {}
            decayed = [parameter for parameter in parameters if parameter.ndim > 1]
            free = [parameter for parameter in parameters if parameter.ndim <= 1]
            if decayed or not rate:
                params.append(dict(params=decayed, **rate))
            if free or not rate:
                params.append(dict(params=free, weight_decay=0.0, **rate))


def _layer_scales(model: nn.Module, rate: float) -> dict[str, float]:
    """Share of the rate of each parameter of a backbone that knows its layers; 1 at the last."""
    scales: dict[str, float] = {}
    if rate == 1.0:
        return scales
    for prefix, module in model.named_modules():
        # mmpretrain's models have it too, and ask a backbone that is not where they look.
        if hasattr(module, 'get_layer_depth') and not hasattr(module, 'loss'):
            for name, _ in module.named_parameters():
                depth, layers = module.get_layer_depth(name)
                scales[f'{prefix}.{name}' if prefix else name] = rate ** (layers - 1 - depth)
    if not scales:
        raise ValueError('paramwise_cfg.layer_decay_rate: no backbone here counts its layers')
    return scales
