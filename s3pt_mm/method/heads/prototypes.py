"""Prototype layers: weight-normalised directions read as plain or as vMF logits."""

from __future__ import annotations

from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn

from s3pt_mm.method.losses.prototype_logits import PrototypeLogits, row_norms
from s3pt_mm.method.losses.vmf import vmf_log_normalizer


class Prototypes(nn.Module):
    """P prototypes ``w_k = g_k v_k / |v_k|`` and the logits they give.

    * ``kind='plain'``: ``w_k . y / tau`` (DINO, CrIBo).
    * ``kind='vmf'``: ``w_k . y / tau + log C_D(|w_k| / tau)``: every prototype is a von Mises-
      Fisher component, its norm the concentration (DINO-vMF, arXiv 2405.10939; S3PT).

    Parameters ``weight_v`` (P, D) and ``weight_g`` (P, 1); both two-dimensional, so that the gain
    is decayed as in DINO.

    Args:
        num_prototypes: P.
        dimension: D, width of the bottleneck.
        kind: 'plain' or 'vmf'.
        unit_norm: Hold the gain at 1 (supplement, Tables 1-3: DINO and CrIBo with ViT-B).

    Raises:
        ValueError: For another ``kind``, or for vMF prototypes held at unit norm, whose
            normaliser would be one constant.
    """

    KINDS = ('plain', 'vmf')

    def __init__(
        self, num_prototypes: int, dimension: int, *, kind: str = 'plain', unit_norm: bool = False
    ) -> None:
        super().__init__()
        if kind not in self.KINDS:
            raise ValueError(f'prototype kind must be one of {self.KINDS}, got {kind!r}')
        if kind == 'vmf' and unit_norm:
            raise ValueError("kind='vmf' reads the prototypes' norms: unit_norm must be False")
        self.kind = kind
        self.num_prototypes = num_prototypes
        self.dimension = dimension
        self.weight_v = nn.Parameter(torch.empty(num_prototypes, dimension))
        self.weight_g = nn.Parameter(torch.ones(num_prototypes, 1), requires_grad=not unit_norm)
        self.unit_norm = unit_norm
        self.frozen = False
        # What nn.Linear does, and so DINO's last layer; only the direction matters.
        bound = dimension**-0.5
        nn.init.uniform_(self.weight_v, -bound, bound)

    def row_norms(self) -> Tensor:
        """(P, 1) norms of the directions, without gradient; call once a step and share them."""
        return row_norms(self.weight_v)

    def bias(self, temperature: float) -> Tensor | None:
        """(P,) vMF log-normaliser at ``kappa = |w| / temperature``; None for plain logits."""
        if self.kind == 'plain':
            return None
        return vmf_log_normalizer(self.free_gain().squeeze(1).abs() / temperature, self.dimension)

    def free_gain(self) -> Tensor:
        """(P, 1) gain, a constant while the layer is frozen."""
        return self.weight_g.detach() if self.frozen else self.weight_g

    def logits(
        self, features: Tensor, temperature: float, bias: Tensor | None = None
    ) -> PrototypeLogits:
        """Factored logits of unit-norm ``features`` (n, D); ``bias`` re-uses :meth:`bias`.

        A frozen layer (``frozen = True``: the first epochs) gives constants, so that neither its
        products nor its normalisation are differentiated. DDP, which waits for every parameter's
        gradient, gets zeros; ``LastLayerFreezeHook`` takes them away before the optimiser's step.
        """
        weight: Tensor = self.weight_v
        gain: Tensor = self.weight_g
        if self.frozen:
            if dist.is_distributed():  # of one rank too: torchrun with one process
                features = _ZeroGradients.apply(features, weight, gain)
            weight, gain = weight.detach(), gain.detach()
        bias = self.bias(temperature) if bias is None else bias
        return PrototypeLogits(features, weight, temperature, bias, gain, self.row_norms())

    def extra_repr(self) -> str:
        """Settings, for printing."""
        size = f'{self.num_prototypes}, {self.dimension}'
        return f'{size}, kind={self.kind!r}, unit_norm={self.unit_norm}'


class _ZeroGradients(torch.autograd.Function):
    """``features`` unchanged; the parameters get gradients of zeros, without any product."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        zeros = [
            torch.zeros_like(parameter) if wanted else None
            for parameter, wanted in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        ]
        return gradient, *zeros
