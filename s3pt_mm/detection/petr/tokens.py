"""Small operations on image tokens (B, tokens, C) that PETR's head needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn


def pointwise(layer: nn.Conv2d, tokens: Tensor) -> Tensor:
    """A 1 x 1 convolution on (..., C) tokens."""
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The function's value, recomputed in the backward.

    The hidden layers of the position MLPs, four times as wide as their output, would otherwise be
    a third of a step's memory and are a fiftieth of its time.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return torch.utils.checkpoint.checkpoint(
        function, *inputs, use_reentrant=False, preserve_rng_state=False
    )


def padding_of_tokens(
    metas: Sequence[Mapping], num_views: int, image_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Which tokens lie in padding.

    Args:
        metas: Of each sample, ``img_shape``: (height, width) of its images, or one pair a view.
        num_views: V.
        image_size: (height, width) after padding, pixels.
        size: (h, w) of the feature map.

    Returns:
        (B, V, h, w) bool, True where a token's first pixel is padding.

    Raises:
        ValueError: An image is larger than what the model received.
    """
    (height, width), (h, w) = image_size, size
    rows, columns = np.arange(h) * height // h, np.arange(w) * width // w
    padding = np.empty((len(metas), num_views, *size), bool)
    for b, meta in enumerate(metas):
        shapes = np.asarray([tuple(s)[:2] for s in np.atleast_2d(meta['img_shape'])], int)
        if (shapes > image_size).any() or len(shapes) not in (1, num_views):
            raise ValueError(
                f'sample {meta.get("token", b)}: img_shape {shapes.tolist()} does not fit '
                f'{num_views} images of {tuple(image_size)}; the calibration belongs to images of '
                'another size'
            )
        for v in range(num_views):
            inside = shapes[v % len(shapes)]
            padding[b, v] = (rows >= inside[0])[:, None] | (columns >= inside[1])
    return padding
