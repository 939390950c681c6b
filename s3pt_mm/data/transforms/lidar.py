"""LiDAR sweep -> sparse points of one camera."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.geometry import invert, project_points, transform_points
from s3pt_mm.data.geometry.completion import GRID_WIDTH, METHODS, complete_points
from s3pt_mm.data.shards import Span, read_bytes
from s3pt_mm.data.transforms.image import image_of

_RELOAD = 'Copy the sweep again from its source, or use with_lidar=False'


def read_sweep(path: str, num_features: int, span: Span | None = None) -> np.ndarray:
    """Points of a raw float32 file (nuScenes' ``.pcd.bin``, KITTI's ``.bin``).

    Args:
        path: the file.
        num_features: numbers a point: 5 in nuScenes, 4 in KITTI.
        span: its bytes in the file, for a tar shard; default: all.

    Returns:
        (M, num_features) float32, M >= 1, x, y, z in metres first.

    Raises:
        DataError: if the file is missing, empty, of the wrong length, or x, y, z are not all
            finite.
    """
    try:
        data = np.frombuffer(read_bytes(path, span), dtype=np.uint8)
    except OSError as error:
        raise DataError(
            path,
            f'cannot read the LiDAR sweep ({error.strerror})',
            'Check data_root and data_prefix, or use with_lidar=False',
        ) from error
    if not data.size:
        raise DataError(path, 'the LiDAR sweep is empty', _RELOAD)
    if data.size % (4 * num_features):
        raise DataError(
            path,
            f'{data.size} bytes are no multiple of {num_features} float32 a point',
            'The sweep is torn, or num_pts_feats of the info file is wrong',
        )
    points = data.view(np.float32).reshape(-1, num_features)
    # One sum instead of a test of every number: it is finite only if all are (no sweep comes near
    # overflow).
    if not np.isfinite(points[:, :3].sum(dtype=np.float64)):
        bad = int((~np.isfinite(points[:, :3])).any(axis=1).sum())
        raise DataError(path, f'{bad} of {len(points)} points are NaN or infinite', _RELOAD)
    return points


def _points(lidar: dict[str, Any]) -> np.ndarray:
    """(M, 3) float32 metres of a sweep of an item."""
    path = os.fspath(lidar['lidar_path'])
    return read_sweep(path, lidar['num_pts_feats'], lidar.get('span'))[:, :3]


@TRANSFORMS.register_module()
class LoadLidar(BaseTransform):
    """Project the item's sweep into its image.

    Adds ``lidar_uvd`` (M, 3) float32: u, v in source pixels and depth in metres.

    Does nothing where the item has no ``lidar_points``. Needs ``img`` of ``LoadImage`` for the
    image's size.

    Args:
        min_depth: metres; nearer points are dropped, as nuscenes-devkit does.
        border: pixels at the image's edge without points, as nuscenes-devkit does.
        sweeps: earlier sweeps that are added to the key frame's, of those that the info file lists
            (moving objects smear; choice of this package).
        depth_completion: 'none', 'nearest' or 'classical'
            (:func:`~s3pt_mm.data.geometry.completion.complete_points`); ``lidar_uvd`` then holds
            the cells of a grid in place of returns. S3PT's paper densifies depth first; how is
            not known, so the method is a choice of this package.
        grid_width: cells in a row of that grid.
    """

    def __init__(
        self,
        *,
        min_depth: float = 1.0,
        border: float = 1.0,
        sweeps: int = 0,
        depth_completion: str = 'none',
        grid_width: int = GRID_WIDTH,
    ) -> None:
        if depth_completion not in METHODS:
            raise ValueError(f'depth_completion must be one of {METHODS}, got {depth_completion!r}')
        if sweeps < 0 or grid_width < 1:
            raise ValueError(
                f'sweeps must be at least 0 and grid_width 1, got {sweeps} and {grid_width}'
            )
        self.min_depth = min_depth
        self.border = border
        self.sweeps = sweeps
        self.depth_completion = depth_completion
        self.grid_width = grid_width

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        lidar = results.get('lidar_points')
        if lidar is None:
            return results
        size = image_of(results).size
        points = _points(lidar)
        earlier = lidar.get('sweeps', ())[: self.sweeps]
        points = np.concatenate([points, *(self._earlier(sweep) for sweep in earlier)])
        uvd = project_points(
            points,
            lidar['lidar2cam'],
            results['cam2img'],
            size,
            min_depth=self.min_depth,
            border=self.border,
            distortion=results.get('distortion'),
        )
        results['lidar_uvd'] = complete_points(
            uvd,
            size,
            method=self.depth_completion,
            grid_width=self.grid_width,
        )
        return results

    @staticmethod
    def _earlier(sweep: dict[str, Any]) -> np.ndarray:
        """(M, 3) points of an earlier sweep in the frame of the key frame's LiDAR."""
        points = _points(sweep)
        to_key = invert(np.asarray(sweep['lidar2sensor'], dtype=np.float64))
        return transform_points(points.astype(np.float64), to_key).astype(np.float32)
