"""Crop box and flip -> positions and depths of the tokens of a view, in closed form.

A view is a box (x0, y0, x1, y1) of the source image, in pixels with centres at integer + 0.5,
resized to a square of ``size`` pixels and mirrored left to right if ``flip``. Its tokens are
row-major.
"""

from __future__ import annotations

import numpy as np


def check_grid(size: int, patch_size: int) -> int:
    """Tokens along a side of a view, ``size / patch_size``.

    Raises:
        ValueError: if the patches do not tile the view.
    """
    if patch_size <= 0 or size % patch_size:
        raise ValueError(
            f'patches of {patch_size} px do not tile a view of {size} px; use a view size that is '
            f'a multiple, e.g. {max(1, round(size / max(patch_size, 1))) * patch_size}'
        )
    return size // patch_size


def token_positions(box: np.ndarray, flip: bool, *, size: int, patch_size: int) -> np.ndarray:
    """Mean source-image coordinate of the pixels of each patch.

    Resizing and flipping are affine, so the mean over a patch is the image of the patch's centre.

    Args:
        box: (4,) x0, y0, x1, y1 in source pixels.
        flip: whether the view is mirrored left to right.
        size: side of the view in pixels.
        patch_size: side of a patch in pixels.

    Returns:
        (N, 2) float32: x, y in source pixels.
    """
    side = check_grid(size, patch_size)
    x0, y0, x1, y1 = (float(value) for value in box)
    fractions = (np.arange(side) + 0.5) / side
    xs = x0 + (x1 - x0) * (1.0 - fractions if flip else fractions)
    ys = y0 + (y1 - y0) * fractions
    return np.stack([np.tile(xs, side), np.repeat(ys, side)], axis=1).astype(np.float32)


def bin_depth(
    points_uvd: np.ndarray,
    box: np.ndarray,
    flip: bool,
    *,
    size: int,
    patch_size: int,
    log: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean depth of the projected points that fall into each patch's footprint.

    Args:
        points_uvd: (M, 3) u, v in source pixels and depth in metres.
        box: (4,) x0, y0, x1, y1 in source pixels.
        flip: whether the view is mirrored left to right.
        size: side of the view in pixels.
        patch_size: side of a patch in pixels.
        log: average the natural logarithm of the depth instead of the depth.

    Returns:
        Depth (N,) float32, in metres (or log metres), 0 where no point fell; mask (N,) bool, True
        where one did.
    """
    side = check_grid(size, patch_size)
    x0, y0, x1, y1 = (float(value) for value in box)
    cols = np.floor((points_uvd[:, 0] - x0) * (side / (x1 - x0))).astype(np.int64)
    rows = np.floor((points_uvd[:, 1] - y0) * (side / (y1 - y0))).astype(np.int64)
    inside = (cols >= 0) & (cols < side) & (rows >= 0) & (rows < side)
    cols, rows, depth = cols[inside], rows[inside], points_uvd[inside, 2].astype(np.float64)
    if flip:
        cols = side - 1 - cols
    token = rows * side + cols
    counts = np.bincount(token, minlength=side * side)
    sums = np.bincount(token, weights=np.log(depth) if log else depth, minlength=side * side)
    has_depth = counts > 0
    return (sums / np.maximum(counts, 1)).astype(np.float32), has_depth
