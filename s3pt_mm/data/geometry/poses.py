"""Rigid transforms between LiDAR, ego, world and camera.

A transform ``a2b`` is a (4, 4) float64 matrix that maps homogeneous points of frame a to frame b,
so chains read from
right to left: ``ego2global @ lidar2ego``. World coordinates of nuScenes reach thousands of metres,
    where float32 is only
good to 0.2 mm; poses therefore stay in float64 until the world has cancelled out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def quaternion_to_rotation(quaternion: Sequence[float] | np.ndarray) -> np.ndarray:
    """Rotation matrix of a quaternion.

    Args:
        quaternion: (4,) w, x, y, z, as in nuScenes' tables. Need not have unit length.

    Returns:
        (3, 3) float64.

    Raises:
        ValueError: if the shape is wrong, or the length is zero or not finite.
    """
    q = np.asarray(quaternion, dtype=np.float64)
    if q.shape != (4,):
        raise ValueError(f'a quaternion has the 4 numbers w, x, y, z; got shape {q.shape}')
    length = np.linalg.norm(q)
    if not np.isfinite(length) or length == 0.0:
        raise ValueError(
            f'quaternion {q.tolist()} has no direction; check the calibration or pose table'
        )
    w, x, y, z = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def rigid(
    rotation: Sequence[float] | np.ndarray, translation: Sequence[float] | np.ndarray
) -> np.ndarray:
    """(4, 4) transform from a quaternion (w, x, y, z) and a translation in metres."""
    t = np.asarray(translation, dtype=np.float64)
    if t.shape != (3,) or not np.isfinite(t).all():
        raise ValueError(f'a translation has 3 finite numbers; got {t.tolist()}')
    transform = np.eye(4)
    transform[:3, :3] = quaternion_to_rotation(rotation)
    transform[:3, 3] = t
    return transform


def invert(transform: np.ndarray) -> np.ndarray:
    """Inverse of a (4, 4) rigid transform (transposed rotation, no matrix inversion)."""
    rotation = transform[:3, :3]
    inverse = np.eye(4)
    inverse[:3, :3] = rotation.T
    inverse[:3, 3] = -rotation.T @ transform[:3, 3]
    return inverse


def lidar_to_camera(
    *,
    lidar2ego: np.ndarray,
    lidar_ego2global: np.ndarray,
    cam2ego: np.ndarray,
    cam_ego2global: np.ndarray,
) -> np.ndarray:
    """Transform from the LiDAR at its sweep to the camera at its exposure.

    Both ego poses take part because the two instants differ: lidar -> ego at the sweep -> world ->
        ego at the exposure
    -> camera.

    Args:
        lidar2ego: (4, 4) extrinsics of the LiDAR.
        lidar_ego2global: (4, 4) pose of the vehicle at the sweep.
        cam2ego: (4, 4) extrinsics of the camera.
        cam_ego2global: (4, 4) pose of the vehicle at the exposure.

    Returns:
        (4, 4) float64.
    """
    return invert(cam_ego2global @ cam2ego) @ (lidar_ego2global @ lidar2ego)
