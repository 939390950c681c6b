"""GridMask: images with a regular grid of squares blanked out (arXiv 2001.04086)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GridMask(nn.Module):
    """Blanks a grid of squares, the same in all images of a step, in training only.

    The period is drawn uniformly from 2 pixels to the image's height, the phase uniformly; squares
    take the share ``1 - ratio`` of the period in both directions. The draw comes from torch's
    global CPU generator.

    Args:
        prob: Probability that a step is masked; PETR: 0.7.
        ratio: Share of the period that stays between two squares; PETR: 0.5.
    """

    def __init__(self, *, prob: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        if not 0 <= prob <= 1 or not 0 < ratio < 1:
            raise ValueError(f'prob is in [0, 1] and ratio in (0, 1), got {prob} and {ratio}')
        self.prob = prob
        self.ratio = ratio

    def forward(self, images: Tensor) -> Tensor:
        """Masks normalised images (..., H, W), so that what is blanked has the mean colour."""
        if not self.training or torch.rand(()) >= self.prob:
            return images
        height, width = images.shape[-2:]
        period = int(torch.randint(2, max(height, 3), ()))
        stripe = min(max(round(period * self.ratio), 1), period - 1)
        kept = [
            (torch.arange(length) + int(torch.randint(period, ()))) % period < stripe
            for length in (height, width)
        ]
        return images * (kept[0][:, None] | kept[1]).to(images)
