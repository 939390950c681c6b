"""Point clouds of any file ending -> (M, features) float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from s3pt_mm.common.errors import DataError

_FEATURES = ('x', 'y', 'z', 'intensity')


def _raw(path: Path, num_features: int) -> np.ndarray:
    data = np.fromfile(path, dtype=np.float32)
    if path.stat().st_size % (4 * num_features):
        raise ValueError(
            f'{path.stat().st_size} bytes are no multiple of {num_features} float32 a point'
        )
    return data.reshape(-1, num_features)


def _npy(path: Path, num_features: int) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _pcd(path: Path, num_features: int) -> np.ndarray:
    from pypcd4 import PointCloud

    cloud = PointCloud.from_path(path)
    return cloud.numpy([name for name in _FEATURES if name in cloud.fields])


def _ply(path: Path, num_features: int) -> np.ndarray:
    from plyfile import PlyData

    vertex = PlyData.read(path)['vertex']
    names = [name for name in _FEATURES if name in vertex.data.dtype.names]
    return np.stack([np.asarray(vertex[name], dtype=np.float32) for name in names], axis=1)


def _las(path: Path, num_features: int) -> np.ndarray:
    import laspy

    cloud = laspy.read(path)
    # Scaled coordinates are float64; a sweep in its own frame loses nothing in float32.
    return np.stack([cloud.x, cloud.y, cloud.z, np.asarray(cloud.intensity, np.float64)], axis=1)


READERS: dict[str, Callable[[Path, int], np.ndarray]] = {
    '.bin': _raw, '.npy': _npy, '.pcd': _pcd, '.ply': _ply, '.las': _las, '.laz': _las,
}  # fmt: skip


def read_points(path: Path, num_features: int = 4) -> np.ndarray:
    """Points of a ``.bin``, ``.npy``, ``.pcd``, ``.ply``, ``.las`` or ``.laz`` file.

    Args:
        path: The file.
        num_features: Numbers a point of a raw ``.bin`` file; the other formats say it themselves.

    Returns:
        (M, >= 3) float32: x, y, z in metres, then what the file has; points that are not finite
        (no return) are left out.

    Raises:
        DataError: The file is missing, torn, of another ending, or has no x, y, z.
    """
    if path.suffix.lower() not in READERS:
        raise DataError(
            path,
            f'point clouds end in {", ".join(READERS)}, not {path.suffix!r}',
            'Convert it, or write an adapter (docs/add_a_format.md)',
        )
    try:
        points = np.asarray(READERS[path.suffix.lower()](path, num_features), dtype=np.float32)
    except ImportError as error:
        raise DataError(
            path, f'reading it needs {error.name}', 'pip install "s3pt_mm[formats]"'
        ) from error
    except Exception as error:  # each library has its own errors for a torn file
        raise DataError(
            path,
            f'not a readable point cloud ({type(error).__name__}: {error})',
            'Copy the sweep again from its source',
        ) from error
    if points.ndim != 2 or points.shape[1] < 3:
        raise DataError(
            path, f'points of shape {points.shape}', 'A cloud needs x, y and z: (M, 3 or more)'
        )
    return points[np.isfinite(points[:, :3]).all(axis=1)]
