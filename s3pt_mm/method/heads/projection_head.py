"""The projection head: MLP, unit-norm bottleneck, image- and object-level prototypes."""

from __future__ import annotations

from functools import partial

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from s3pt_mm.method.encoder_layers import narrowed
from s3pt_mm.method.heads.prototypes import Prototypes
from s3pt_mm.method.losses.prototype_logits import autocast_dtype
from s3pt_mm.method.row_limits import padding, row_limit


class BatchStatNorm(nn.Module):
    """Batch normalisation by the statistics of the rows at hand, in training and in eval mode.

    A teacher is always in eval mode, where ``nn.BatchNorm1d`` would use running statistics that
    mix class tokens and objects. Without running state there is nothing to mix or to average,
    and a single row (variance 0) gives the bias instead of an error.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, rows: Tensor) -> Tensor:
        """(n, d) rows -> normalised rows."""
        if len(rows) == 0:
            return rows
        variance, mean = torch.var_mean(rows.float(), dim=0, correction=0)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((rows - mean) * scale + self.bias).to(rows.dtype)


@MODELS.register_module()
class ProjectionHead(BaseModule):
    """MLP d -> hidden -> hidden -> D (GELU), L2 norm, then prototypes (supplement, Tables 1-3).

    The MLP and the bottleneck are shared by the image-level and the object-level prototypes
    (CrIBo, arXiv 2310.07855). Rows go through :meth:`forward`; the prototype layers are read by
    the losses in factored form.

    Args:
        in_channels: d, token width.
        num_prototypes: P of the image level and, if present, of the object level.
        hidden_channels: Width of the hidden layers.
        bottleneck_channels: D.
        num_layers: Linear layers of the MLP.
        prototype_kind: 'plain' or 'vmf'.
        unit_norm_prototypes: Hold prototype gains at 1.
        with_objects: Build object-level prototypes.
        batch_norm: Normalise hidden layers by batch statistics (DINO's ``use_bn``; helps small
            models and short runs, off in the supplement's settings).
        init: 'trunc_normal' (std 0.02, DINO) or 'xavier' (choice of this package for short runs).
        memory: 'auto' or gigabytes (:func:`~s3pt_mm.method.row_limits.row_limit`): more rows than
            fit go in pieces that the backward pass computes again, so that memory does not grow
            with the number of objects. Changes memory, not results. Not with ``batch_norm``, whose
            rows depend on each other.
        rows_at_a_time: Rows of a piece, in place of ``memory``.

    Raises:
        ValueError: For another ``init`` or ``num_layers`` below 1.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_prototypes: int = 65536,
        hidden_channels: int = 2048,
        bottleneck_channels: int = 256,
        num_layers: int = 3,
        prototype_kind: str = 'plain',
        unit_norm_prototypes: bool = False,
        with_objects: bool = True,
        batch_norm: bool = False,
        init: str = 'trunc_normal',
        memory: str | float = 'auto',
        rows_at_a_time: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, got {num_layers}')
        if rows_at_a_time is not None and rows_at_a_time < 1:
            raise ValueError(f'rows_at_a_time must be at least 1, got {rows_at_a_time}')
        self.memory, self.rows_at_a_time, self.batch_norm = memory, rows_at_a_time, batch_norm
        # Of a row: two numbers of every hidden unit (before and after GELU) and their gradients.
        self.bytes_per_row = 16 * hidden_channels * max(num_layers - 1, 1)
        if init not in ('trunc_normal', 'xavier'):
            raise ValueError(f"init must be 'trunc_normal' or 'xavier', got {init!r}")
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), bottleneck_channels]
        layers: list[nn.Module] = []
        for index, (narrow, wide) in enumerate(zip(widths, widths[1:], strict=False)):
            layers.append(self._linear(narrow, wide, init))
            if index < num_layers - 1:
                if batch_norm:
                    layers.append(BatchStatNorm(wide))
                layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers)
        prototypes = partial(
            Prototypes,
            num_prototypes,
            bottleneck_channels,
            kind=prototype_kind,
            unit_norm=unit_norm_prototypes,
        )
        self.image_prototypes = prototypes()
        self.object_prototypes = prototypes() if with_objects else None

    @staticmethod
    def _linear(narrow: int, wide: int, init: str) -> nn.Linear:
        layer = nn.Linear(narrow, wide)
        if init == 'xavier':
            nn.init.xavier_uniform_(layer.weight)
        else:
            nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
        return layer

    def forward(self, rows: Tensor) -> Tensor:
        """(n, d) class tokens or object vectors -> (n, D) unit-norm bottleneck vectors, float32."""
        if self.batch_norm:
            return self._project(rows)
        count, limit = len(rows), self.rows_at_a_time
        if limit is None:
            limit = row_limit(
                self.memory, rows.device, on_cpu=256, bytes_per_row=self.bytes_per_row
            )
        extra = padding(count, rows.device)
        if extra:
            rows = F.pad(rows, (0, 0, 0, extra))
        if len(rows) <= limit:
            features = self._project(rows)
        else:
            pieces = rows.split(limit)
            features = torch.cat(
                [checkpoint(self._project, piece, use_reentrant=False) for piece in pieces]
            )
        return features[:count] if extra else features

    def together(self, *groups: Tensor) -> list[Tensor]:
        """:meth:`forward` of several groups of rows.

        One call where each row is on its own and calls cost: an accelerator's launches.
        """
        if self.batch_norm or groups[0].device.type == 'cpu':
            return [self(rows) for rows in groups]
        return list(self(torch.cat(groups)).split([len(rows) for rows in groups]))

    def _project(self, rows: Tensor) -> Tensor:
        linears = [layer for layer in self.mlp if isinstance(layer, nn.Linear)]
        weights = iter(narrowed(linears, autocast_dtype(rows)))
        with torch.autocast(rows.device.type, enabled=False):
            for layer in self.mlp:
                if isinstance(layer, nn.Linear):
                    weight, bias = next(weights)
                    rows = F.linear(rows.to(weight.dtype), weight, bias)
                else:
                    rows = layer(rows)
            return F.normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=-1)

    def prototype_layers(self) -> list[Prototypes]:
        """The prototype layers that exist, image level first."""
        return [
            layer for layer in (self.image_prototypes, self.object_prototypes) if layer is not None
        ]

    def concentrations(self, temperature: float) -> Tensor | None:
        """(levels, P) kappa of vMF prototypes, levels as in :meth:`prototype_layers`, or None."""
        layers = self.prototype_layers()
        if layers[0].kind == 'plain':
            return None
        gains = torch.stack([layer.free_gain().squeeze(1) for layer in layers])
        return gains.abs() / temperature
