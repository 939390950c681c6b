"""Views cut from whole images on the device: JPEGs decoded there, crops resized by two products.

The worker draws boxes, flips and colours as ever (``decode_on='device'`` in the views' transform);
what is left to it is reading a file. The resizing is Pillow's antialiased bicubic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CUBIC = -0.5  # of the bicubic kernel of antialiased resizing

# Columns of the cuts of one view: corners of its box, 1 where it is mirrored, side of the view.
BOX, FLIP, SIZE = slice(0, 4), 4, 5


def decoded(jpegs: Sequence[Tensor], device: torch.device | str, paths: Sequence[str]) -> Tensor:
    """Files' bytes (uint8, on the host) -> (n, 3, H, W) uint8, each in the upper left corner.

    On NVIDIA GPUs by nvJPEG, elsewhere by libjpeg, both through torchvision.

    Raises:
        RuntimeError: The decoder is not there or cannot read a file; says what to do.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        images = decode_jpeg(list(jpegs), mode=ImageReadMode.RGB, device=str(device))
    except RuntimeError as error:
        raise RuntimeError(
            f"decode_on='device' failed on {device} for one of {list(paths)}: {error}. It needs a "
            'torchvision with nvJPEG (pip wheels for CUDA have it; torchvision.io.decode_jpeg) and '
            "whole baseline or progressive JPEGs: decode_on='worker' names a torn file and takes "
            'every format'
        ) from error
    sides = [max(image.shape[side] for image in images) for side in (1, 2)]
    if all(image.shape[1:] == tuple(sides) for image in images):
        return torch.stack(images)
    canvas = images[0].new_zeros(len(images), 3, *sides)
    for place, image in zip(canvas, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return canvas


def cut_views(images: Tensor, cuts: Tensor) -> list[Tensor]:
    """The views of each image.

    Args:
        images: (B, 3, H, W) uint8 of :func:`decoded`.
        cuts: (B, V, 6) on the host.

    Returns:
        V views, each (B, 3, size, size) uint8, RGB.
    """
    half = torch.float16 if images.is_cuda else torch.float32
    pixels = images.to(half)
    if images.is_cuda:
        there = cuts.float().pin_memory().to(images.device, non_blocking=True)
    else:
        there = cuts.float().to(images.device)
    sizes = cuts[0, :, SIZE].int().tolist()
    return [
        crop_and_resize(pixels, there[:, view, BOX], there[:, view, FLIP] > 0, size)
        for view, size in enumerate(sizes)
    ]


def crop_and_resize(pixels: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """(n, 3, H, W) real, (n, 4) boxes, (n,) bool -> (n, 3, size, size) uint8."""
    x0, y0, x1, y1 = boxes.unbind(1)
    height, width = pixels.shape[2:]
    down = resize_weights(y0, y1, height, size).to(pixels.dtype)
    across = mirrored(resize_weights(x0, x1, width, size), flips).to(pixels.dtype)
    out = (down[:, None] @ pixels) @ across[:, None].transpose(2, 3)
    return out.round_().clamp_(0, 255).to(torch.uint8)


def resize_weights(low: Tensor, high: Tensor, length: int, size: int) -> Tensor:
    """Bicubic, antialiased, from pixels ``low`` to ``high``: (n, size, length), rows sum to 1."""
    scale = ((high - low) / size)[:, None, None]
    support = scale.clamp_min(1.0)
    pixels = torch.arange(length, device=low.device) + 0.5
    targets = (torch.arange(size, device=low.device) + 0.5)[None, :, None]
    x = ((pixels - low[:, None, None] - targets * scale) / support).abs()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = _CUBIC * (((x - 5) * x + 8) * x - 4)
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    inside = (pixels > low[:, None, None]) & (pixels < high[:, None, None])
    weights = weights * inside
    return weights / weights.sum(2, keepdim=True)


def mirrored(weights: Tensor, flips: Tensor) -> Tensor:
    """Targets in reverse order where ``flips``."""
    return torch.where(flips[:, None, None], weights.flip(1), weights)
