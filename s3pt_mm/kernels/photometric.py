"""Colour jitter, grey, blur and solarise of a whole batch, on any device.

The plain form is :class:`s3pt_mm.data.transforms.Photometric`, image by image in a worker; its
draws are the input here, so both give the same picture within rounding. There is no branch and no
wait: an image that is spared an operation goes through it with neutral numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Columns of the draws of one view: order of the four adjustments (positions 0 to 3 hold 0
# brightness, 1 contrast, 2 saturation, 3 hue), their factors and the hue's shift, then 1 for grey,
# sigma of the blur in pixels (0: none), and the level from which values are inverted (256: none).
BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY, SIGMA, SOLARIZE = range(4, 11)
NEUTRAL = (0, 1, 2, 3, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 256.0)
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601


def colour_views(images: Tensor, draws: Tensor) -> Tensor:
    """Apply each image's draws.

    Args:
        images: (B, 3, h, w) uint8, RGB.
        draws: (B, 11) float32, on the host: what ``Photometric.draw`` gives, one row an image.

    Returns:
        (B, 3, h, w) uint8 on the device of ``images``.
    """
    radius = math.ceil(3 * float(draws[:, SIGMA].max())) if len(draws) else 0
    if images.is_cuda:
        draws = draws.pin_memory()
    draws = draws.to(images.device, non_blocking=True)[..., None, None, None]
    pixels = images.float()
    for place in range(4):
        pixels = _round(_adjusted(pixels, draws[:, place], draws))
    pixels = torch.where(draws[:, GREY] > 0, _round(_grey(pixels)), pixels)
    if radius:
        pixels = _round(_blurred(pixels, draws[:, SIGMA].flatten(), radius))
    pixels = torch.where(pixels >= draws[:, SOLARIZE], 255 - pixels, pixels)
    return pixels.to(torch.uint8)


def _adjusted(pixels: Tensor, kind: Tensor, draws: Tensor) -> Tensor:
    """One of the four adjustments, by image; ``kind`` is (B, 1, 1, 1)."""
    grey = _round(_grey(pixels))
    mean = _grey(pixels.mean((2, 3), keepdim=True))
    out = pixels * draws[:, BRIGHTNESS]
    contrast = mean + draws[:, CONTRAST] * (pixels - mean)
    saturation = grey + draws[:, SATURATION] * (pixels - grey)
    out = torch.where(kind == 1, contrast, out)
    out = torch.where(kind == 2, saturation, out)
    return torch.where(kind == 3, _turned(pixels, draws[:, HUE]), out)


def _round(pixels: Tensor) -> Tensor:
    return pixels.round_().clamp_(0, 255)


def _grey(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.split(1, 1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def _turned(pixels: Tensor, shift: Tensor) -> Tensor:
    """The hue turned by ``shift`` of the full circle: RGB -> HSV -> RGB."""
    red, green, blue = pixels.split(1, 1)
    value = pixels.amax(1, keepdim=True)
    chroma = value - pixels.amin(1, keepdim=True)
    over = chroma.clamp_min(1e-6)
    sector = torch.where(
        value == red,
        (green - blue) / over,
        torch.where(value == green, 2 + (blue - red) / over, 4 + (red - green) / over),
    )
    places = torch.arange(5, 0, -2, device=pixels.device)
    k = (places.view(1, 3, 1, 1) + sector + 6 * shift) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def _blurred(pixels: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """A Gaussian by image, each cut at three of its own sigmas; edges are repeated."""
    taps = torch.arange(-radius, radius + 1, device=pixels.device, dtype=pixels.dtype)
    sigma = sigma[:, None]
    weight = torch.exp(-0.5 * (taps / sigma.clamp_min(1e-3)) ** 2)
    weight = weight * (taps.abs() <= torch.ceil(3 * sigma).clamp_min(1))
    weight = (weight / weight.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None, None]
    batch, channels, height, width = pixels.shape
    rows = F.pad(pixels, (radius, radius, radius, radius), mode='replicate')
    rows = rows.view(1, batch * channels, height + 2 * radius, width + 2 * radius)
    rows = F.conv2d(rows, weight, groups=batch * channels)
    rows = F.conv2d(rows, weight.transpose(2, 3), groups=batch * channels)
    return rows.view(pixels.shape)
