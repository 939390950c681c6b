"""Depth maps as another source of token depth: for data without LiDAR, from any depth network."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.geometry.completion import GRID_WIDTH
from s3pt_mm.data.shards import Span, read_bytes
from s3pt_mm.data.transforms.image import image_of

_WRITE = 'Write one channel: a 16-bit PNG (depth / scale, 0 where unknown) or a .npy of metres'


def read_depth_map(path: str, scale: float | None = None, span: Span | None = None) -> np.ndarray:
    """Depths of a 16-bit PNG or a .npy file.

    Args:
        path: the file.
        scale: metres of one unit; default 1/256 for PNG (KITTI's), 1 for .npy.
        span: its bytes in the file, for a tar shard; default: all.

    Returns:
        (H, W) float32 metres, 0 where unknown: the file has 0, a negative or no finite number.

    Raises:
        DataError: if the file is missing, torn, of another kind or shape, or knows no depth.
    """
    try:
        data = read_bytes(path, span)
        if data.startswith(b'\x93NUMPY'):
            depth, scale = np.load(io.BytesIO(data), allow_pickle=False), scale or 1.0
        else:
            pixels = np.frombuffer(data, np.uint8)
            depth, scale = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED), scale or 1 / 256
    except OSError as error:
        raise DataError(
            path,
            f'cannot read the depth map ({error.strerror or error})',
            'Check depth_map and data_prefix, or leave LoadDepthMap out',
        ) from error
    except (ValueError, EOFError, MemoryError, cv2.error) as error:
        raise DataError(path, f'not a readable depth map ({error})', _WRITE) from error
    if depth is None:
        raise DataError(path, 'not a readable depth map', _WRITE)
    if depth.ndim != 2 or depth.dtype == np.uint8 or depth.dtype.kind not in 'uif':
        raise DataError(path, f'a depth map of {depth.dtype} and shape {depth.shape}', _WRITE)
    depth = depth.astype(np.float32) * np.float32(scale)
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
    if not depth.any():
        raise DataError(path, 'the depth map knows no depth', _WRITE)
    return depth


def fits_image(path: str, depth: np.ndarray, size: tuple[int, int]) -> None:
    """Check that a depth map has its image's shape; it may be smaller.

    Args:
        path: of the map, for the message.
        depth: (rows, columns).
        size: (width, height) of the image, pixels.

    Raises:
        DataError: it has another shape.
    """
    (width, height), (rows, columns) = size, depth.shape
    if abs(width * rows - height * columns) > max(width, height):  # a pixel of rounding
        raise DataError(
            path,
            f'the depth map has {columns} x {rows} pixels, its image {width} x {height}',
            'Write it at the shape of the whole image',
        )


@TRANSFORMS.register_module()
class LoadDepthMap(BaseTransform):
    """Read the item's ``depth_map`` as points of its image, in place of ``LoadLidar``.

    Adds ``lidar_uvd`` (M, 3) float32: u, v in source pixels and depth in metres. Does nothing
    where the item has no ``depth_map``. Comes after the image's loader, for the image's size; the
    map may be smaller than the image, of the same shape.

    Args:
        scale: metres of one unit; default 1/256 for PNG (KITTI's), 1 for .npy.
        max_depth: metres; what lies further has no depth, since depth networks give sky a large
            one (choice of this package).
        grid_width: about how many columns of the map are kept (choice of this package: a token
            covers many pixels).
    """

    def __init__(
        self, *, scale: float | None = None, max_depth: float = 80.0, grid_width: int = GRID_WIDTH
    ) -> None:
        for name, value in (('scale', scale), ('max_depth', max_depth), ('grid_width', grid_width)):
            if value is not None and value <= 0:
                raise ValueError(f'{name} must be positive, got {value}')
        self.scale, self.max_depth, self.grid_width = scale, max_depth, grid_width

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        path = results.get('depth_map')
        if path is None:
            return results
        depth = read_depth_map(path, self.scale, results.get('depth_span'))
        size = image_of(results).size
        (width, height), (rows, columns) = size, depth.shape
        fits_image(path, depth, size)
        stride = max(1, round(columns / self.grid_width))
        start = stride // 2
        kept = depth[start::stride, start::stride]
        v, u = np.nonzero((kept > 0) & (kept <= self.max_depth))
        results['lidar_uvd'] = np.stack(
            [
                (u * stride + start + 0.5) * (width / columns),
                (v * stride + start + 0.5) * (height / rows),
                kept[v, u],
            ],
            axis=1,
        ).astype(np.float32)
        return results
