"""VoVNetV2 (arXiv 1904.09730, 1911.06667), the supervised baseline's image backbone.

Names of weights follow the public VoVNetV2, in which DD3D's and FCOS3D's trained files are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STEM = (64, 64, 128)
STAGE_CHANNELS = (128, 160, 192, 224)
OUT_CHANNELS = (256, 512, 768, 1024)
LAYERS_PER_BLOCK = 5
BLOCKS = {39: (1, 1, 2, 2), 57: (1, 1, 4, 3), 99: (1, 3, 9, 3)}
"""Aggregation blocks of each stage by depth (arXiv 1911.06667, Table 1)."""


def conv_norm_relu(
    inputs: int, outputs: int, name: str, *, kernel: int = 3, stride: int = 1
) -> OrderedDict[str, nn.Module]:
    """Convolution without bias, batch norm, ReLU, under the names of the public weights."""
    return OrderedDict(
        {
            f'{name}/conv': nn.Conv2d(
                inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
            ),
            f'{name}/norm': nn.BatchNorm2d(outputs),
            f'{name}/relu': nn.ReLU(inplace=True),
        }
    )


class ChannelGate(nn.Module):
    """Effective squeeze-and-excitation: one layer from the channels' means to their factors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class AggregationBlock(nn.Module):
    """One-shot aggregation: a chain of convolutions whose outputs are joined once, at its end.

    Args:
        inputs: Channels in.
        channels: Channels of the chain.
        outputs: Channels out.
        name: Of the block in the public weights.
        residual: Add the input.
        recompute: Recompute in the backward instead of keeping activations.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        outputs: int,
        *,
        name: str,
        residual: bool,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.recompute = recompute
        self.layers = nn.ModuleList(
            nn.Sequential(conv_norm_relu(channels if i else inputs, channels, f'{name}_{i}'))
            for i in range(LAYERS_PER_BLOCK)
        )
        joined = inputs + LAYERS_PER_BLOCK * channels
        self.concat = nn.Sequential(conv_norm_relu(joined, outputs, f'{name}_concat', kernel=1))
        self.ese = ChannelGate(outputs)

    def _forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        out = self.ese(self.concat(torch.cat(outputs, 1)))
        return out + x if self.residual else out

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        if self.recompute and self.training and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


@MODELS.register_module()
class S3PTVoVNet(BaseModule):
    """VoVNetV2 with effective squeeze-and-excitation.

    Args:
        depth: 39, 57 or 99.
        out_stages: Stages whose outputs are returned, 2 to 5 (strides 4 to 32).
        frozen_stages: Stem and stages up to this number get no gradient; 1 is the stem, -1 none.
        norm_eval: Keep batch norm at its running statistics while training.
        recompute: Recompute blocks in the backward: less memory, same result (PETR's code does).
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        *,
        depth: int = 99,
        out_stages: Sequence[int] = (4, 5),
        frozen_stages: int = -1,
        norm_eval: bool = True,
        recompute: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if depth not in BLOCKS:
            raise ValueError(f'depth is one of {sorted(BLOCKS)}, got {depth}')
        if not set(out_stages) <= {2, 3, 4, 5}:
            raise ValueError(f'out_stages are within 2 to 5, got {tuple(out_stages)}')
        self.out_stages = tuple(out_stages)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.stem = nn.Sequential(
            OrderedDict(
                conv_norm_relu(3, STEM[0], 'stem_1', stride=2)
                | conv_norm_relu(STEM[0], STEM[1], 'stem_2')
                | conv_norm_relu(STEM[1], STEM[2], 'stem_3', stride=2)
            )
        )
        inputs = STEM[-1]
        for index, blocks in enumerate(BLOCKS[depth]):
            stage = nn.Sequential()
            if index:
                stage.add_module('Pooling', nn.MaxPool2d(3, stride=2, ceil_mode=True))
            for block in range(blocks):
                name = f'OSA{index + 2}_{block + 1}'
                stage.add_module(
                    name,
                    AggregationBlock(
                        inputs,
                        STAGE_CHANNELS[index],
                        OUT_CHANNELS[index],
                        name=name,
                        residual=block > 0,
                        recompute=recompute,
                    ),
                )
                inputs = OUT_CHANNELS[index]
            self.add_module(f'stage{index + 2}', stage)

    def train(self, mode: bool = True) -> S3PTVoVNet:
        """Training mode, but for frozen stages and, with ``norm_eval``, all batch norms."""
        super().train(mode)
        frozen = [self.stem] if self.frozen_stages >= 1 else []
        frozen += [getattr(self, f'stage{s}') for s in range(2, self.frozen_stages + 1)]
        for module in frozen:
            module.eval().requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of ``out_stages``, finest first.

        Args:
            x: (N, 3, H, W).
        """
        x = self.stem(x)
        outputs = []
        for stage in range(2, max(self.out_stages) + 1):
            x = getattr(self, f'stage{stage}')(x)
            if stage in self.out_stages:
                outputs.append(x)
        return tuple(outputs)
