"""Points -> pixels and metres: the one definition for pre-training, ToyDrive and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from s3pt_mm.data.geometry.lens import check_lens, distort


def transform_points(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) rigid transform to (M, 3) points; dtype of the points is kept."""
    rotation = transform[:3, :3].astype(points.dtype)
    return points @ rotation.T + transform[:3, 3].astype(points.dtype)


def cam_to_image(points: np.ndarray, cam2img: np.ndarray) -> np.ndarray:
    """Pixels (M, 2) of (M, 3) camera points in front, by the pinhole ``cam2img`` (3, 3)."""
    homogeneous = points @ cam2img[:3, :3].T.astype(points.dtype)
    return homogeneous[:, :2] / homogeneous[:, 2:3]


def project_points(
    points: np.ndarray,
    lidar2cam: np.ndarray,
    cam2img: np.ndarray,
    image_size: tuple[int, int],
    *,
    min_depth: float = 1.0,
    border: float = 1.0,
    distortion: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Project LiDAR points and keep those a camera can see.

    The rule is nuscenes-devkit's ``map_pointcloud_to_image``: deeper than ``min_depth`` and more
    than ``border`` pixels away from the image's edges.

    Args:
        points: (M, 3 or more) x, y, z in metres in the LiDAR frame; further columns are ignored.
        lidar2cam: (4, 4) LiDAR at its sweep -> camera at its exposure.
        cam2img: (3, 3) intrinsics of the full-size image.
        image_size: (width, height) in pixels of the full-size image.
        min_depth: metres along the camera's z axis.
        border: pixels.
        distortion: the lens of an image that is not rectified
            (:func:`~s3pt_mm.data.geometry.check_lens`).

    Returns:
        (M', 3) float32: u, v in pixels of the source image and depth in metres, in the order of
        ``points``.
    """
    width, height = image_size
    points = np.asarray(points)[:, :3]
    lidar2cam = np.asarray(lidar2cam, dtype=np.float64)
    # Depth of everything first: five points in six are behind or beside the camera and need no
    # pixel.
    axis = lidar2cam[2].astype(points.dtype)
    in_front = np.flatnonzero(points @ axis[:3] + axis[3] > min_depth)
    camera = transform_points(points[in_front].astype(np.float64), lidar2cam)
    cam2img = np.asarray(cam2img, dtype=np.float64)
    seen = camera[:, 2] > min_depth
    if distortion is None:
        pixels = cam_to_image(camera, cam2img)
    else:
        pixels, valid = distort(camera, cam2img, *check_lens(distortion))
        seen &= valid
    u, v = pixels[:, 0], pixels[:, 1]
    inside = (u > border) & (u < width - border) & (v > border) & (v < height - border) & seen
    return np.concatenate([pixels[inside], camera[inside, 2:3]], axis=1).astype(np.float32)
