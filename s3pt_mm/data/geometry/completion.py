"""Sparse depth of an image -> denser depth, on a grid of cells that is coarser than the pixels.

A token covers tens of pixels, so a grid a few hundred cells wide loses nothing, and at that size
the kernels that Ku et al. chose for KITTI's 64 beams also span the gaps of 32 beams.
"""

from __future__ import annotations

import cv2
import numpy as np

METHODS = ('none', 'nearest', 'classical')
GRID_WIDTH = 400
_DIAMOND = np.array(
    [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]], np.uint8
)
_REACH = 15  # cells; half of the largest kernel of the classical method


def complete_points(
    points_uvd: np.ndarray,
    image_size: tuple[int, int],
    *,
    method: str,
    grid_width: int = GRID_WIDTH,
) -> np.ndarray:
    """Fill the gaps between the returns of one image.

    Nothing is filled above the highest return of a column of the grid (its dilation by two
    cells included): sky stays without depth.

    Args:
        points_uvd: (M, 3) u, v in source pixels and depth in metres.
        image_size: (width, height) in pixels.
        method: 'none' returns the points; 'nearest' gives every cell the depth of the nearest
            return within 15 cells; 'classical' is :func:`complete_classical`.
        grid_width: cells in a row, at most one a pixel (choice of this package).

    Returns:
        (M', 3) float32: u, v of the centres of the cells that have a depth, and that depth.

    Raises:
        ValueError: For another ``method``.
    """
    if method not in METHODS:
        raise ValueError(f'depth completion must be one of {METHODS}, got {method!r}')
    if method == 'none' or not len(points_uvd):
        return points_uvd
    width, height = image_size
    cell = max(1.0, width / grid_width)
    grid = np.full((int(np.ceil(height / cell)), int(np.ceil(width / cell))), np.inf, np.float32)
    columns, rows = (points_uvd[:, :2] / cell).astype(np.int64).T
    # Of several returns in a cell the nearest: it hides the others.
    np.minimum.at(grid, (rows, columns), points_uvd[:, 2])
    sparse = np.where(np.isinf(grid), 0, grid).astype(np.float32)
    dense = complete_classical(sparse) if method == 'classical' else complete_nearest(sparse)
    occupied = cv2.dilate((sparse > 0).astype(np.uint8), _DIAMOND)
    below_highest = np.maximum.accumulate(occupied, axis=0).astype(bool)
    rows, columns = np.nonzero((dense > 0) & below_highest)
    return np.stack(
        [(columns + 0.5) * cell, (rows + 0.5) * cell, dense[rows, columns]], axis=1
    ).astype(np.float32)


def complete_nearest(sparse: np.ndarray) -> np.ndarray:
    """(H, W) depths, 0 where unknown -> each cell within reach has its nearest return's depth."""
    distance, labels = cv2.distanceTransformWithLabels(
        (sparse == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(labels.max() + 1, np.float32)
    known = sparse > 0
    values[labels[known]] = sparse[known]
    return np.where(distance <= _REACH, values[labels], 0).astype(np.float32)


def complete_classical(sparse: np.ndarray) -> np.ndarray:
    """Morphological completion of Ku, Harakeh and Waslander (arXiv 1802.00036).

    Depths are inverted, so that dilation prefers what is near; then dilation by a diamond of 5,
    closing by 5, filling by dilations of 7 and of 31, median and Gaussian blur of 5. Their
    extension of each column to the top of the image is left out (sky), and the Gaussian is
    normalised by what is known, so that edges of the unknown are not drawn away.

    Args:
        sparse: (H, W) float32 metres, 0 where unknown.

    Returns:
        (H, W) float32 metres, 0 where still unknown.
    """
    top = float(sparse.max()) + 1.0
    inverse = np.where(sparse > 0, top - sparse, 0).astype(np.float32)
    inverse = cv2.dilate(inverse, _DIAMOND)
    inverse = cv2.morphologyEx(inverse, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    for size in (7, 2 * _REACH + 1):
        filled = cv2.dilate(inverse, np.ones((size, size), np.uint8))
        inverse = np.where(inverse > 0, inverse, filled)
    inverse = cv2.medianBlur(inverse, 5)
    known = (inverse > 0).astype(np.float32)
    share = cv2.GaussianBlur(known, (5, 5), 0)
    smooth = cv2.GaussianBlur(inverse, (5, 5), 0) / np.maximum(share, 1e-6)
    return np.where(known > 0, top - smooth, 0).astype(np.float32)
