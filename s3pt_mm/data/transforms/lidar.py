"""LiDAR sweep -> sparse points of one camera."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from s3pt_mm.data.geometry import project_points
from s3pt_mm.common.errors import DataError

_RELOAD = 'Copy the sweep again from its source, or use with_lidar=False'


def read_sweep(path: str, num_features: int) -> np.ndarray:
    """Points of a raw float32 file (nuScenes' ``.pcd.bin``, KITTI's ``.bin``).

    Args:
        path: the file.
        num_features: numbers a point: 5 in nuScenes, 4 in KITTI.

    Returns:
        (M, num_features) float32, M >= 1, x, y, z in metres first.

    Raises:
        DataError: if the file is missing, empty, of the wrong length, or x, y, z are not all
            finite.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8)
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


@TRANSFORMS.register_module()
class LoadLidar(BaseTransform):
    """Project the item's sweep into its image.

    Adds ``lidar_uvd`` (M, 3) float32: u, v in source pixels and depth in metres.

    Does nothing where the item has no ``lidar_points``. Needs ``img`` of ``LoadImage`` for the
    image's size.

    Args:
        min_depth: metres; nearer points are dropped, as nuscenes-devkit does.
        border: pixels at the image's edge without points, as nuscenes-devkit does.
    """

    def __init__(self, *, min_depth: float = 1.0, border: float = 1.0) -> None:
        self.min_depth = min_depth
        self.border = border

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        lidar = results.get('lidar_points')
        if lidar is None:
            return results
        points = read_sweep(os.fspath(lidar['lidar_path']), lidar['num_pts_feats'])
        results['lidar_uvd'] = project_points(
            points,
            lidar['lidar2cam'],
            results['cam2img'],
            results['img'].size,
            min_depth=self.min_depth,
            border=self.border,
            distortion=results.get('distortion'),
        )
        return results
