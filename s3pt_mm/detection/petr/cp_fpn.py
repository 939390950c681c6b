"""PETR's feature pyramid: an FPN whose output convolution exists at its finest level alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class S3PTCPFPN(BaseModule):
    """FPN (arXiv 1612.03144) with one 3 x 3 convolution; coarser outputs are the lateral sums.

    Args:
        in_channels: Channels of each input, finest first.
        out_channels: Channels of every output.
        init_cfg: mmengine's; Xavier uniform by default, as mmdet's FPN.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        init_cfg: dict | None = None,
    ) -> None:
        xavier = {'type': 'Xavier', 'layer': 'Conv2d', 'distribution': 'uniform'}
        super().__init__(init_cfg or xavier)
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, act_cfg=None) for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList(
            [ConvModule(out_channels, out_channels, 3, padding=1, act_cfg=None)]
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Sums from coarse to fine.

        Args:
            inputs: (N, C_i, H_i, W_i) each, finest first.

        Returns:
            As many maps (N, out_channels, H_i, W_i).

        Raises:
            ValueError: Another number of inputs than the config says.
        """
        if len(inputs) != len(self.lateral_convs):
            raise ValueError(f'{len(self.lateral_convs)} inputs configured, got {len(inputs)}')
        outputs = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=True)]
        for level in range(len(outputs) - 1, 0, -1):
            finer = outputs[level - 1]
            outputs[level - 1] = finer + F.interpolate(outputs[level], size=finer.shape[-2:])
        return (self.fpn_convs[0](outputs[0]), *outputs[1:])
