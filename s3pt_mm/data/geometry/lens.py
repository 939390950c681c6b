"""Projections as files state them: fourth columns, lenses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

#: Accepted numbers of coefficients, in OpenCV's order.
LENSES: Mapping[str, tuple[int, ...]] = {'brown': (4, 5, 8, 12, 14), 'fisheye': (4,)}
_LAST_ROW = np.array([0.0, 0.0, 0.0, 1.0])


def fold_projection(cam2img: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a projection into intrinsics and the shift that its fourth column is.

    KITTI states P = K [I | t]: the rectified cameras stand beside the one that the extrinsics
    name. Cutting P to (3, 3) moves every LiDAR point by several pixels.

    Args:
        cam2img: (3, 3), (3, 4) or (4, 4).

    Returns:
        K (3, 3) and a (4, 4) transform that follows ``lidar2cam``: K (T X) equals P X.

    Raises:
        ValueError: Another shape, numbers that are not finite, a focal length that is not
            positive, or a last row other than (0, 0, 1).
    """
    matrix = np.asarray(cam2img, dtype=np.float64)
    if matrix.shape not in ((3, 3), (3, 4), (4, 4)):
        raise ValueError(f'cam2img must be 3 x 3, 3 x 4 or 4 x 4, got shape {matrix.shape}')
    if not np.isfinite(matrix).all():
        raise ValueError(f'cam2img must be finite, got {matrix.tolist()}')
    if matrix.shape == (4, 4) and np.abs(matrix[3] - _LAST_ROW).max() > 1e-6:
        raise ValueError(f"cam2img's fourth row must be 0 0 0 1, got {matrix[3].tolist()}")
    intrinsics = matrix[:3, :3].copy()
    (fx, _, _), (below, fy, _), last = intrinsics.tolist()  # floats: this runs for every image
    if min(fx, fy) <= 0 or below or max(abs(last[0]), abs(last[1]), abs(last[2] - 1)) > 1e-6:
        raise ValueError(
            'cam2img must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0, '
            f'got {intrinsics.tolist()}'
        )
    shift = np.eye(4)
    if matrix.shape[1] == 4:
        shift[:3, 3] = np.linalg.solve(intrinsics, matrix[:3, 3])
    return intrinsics, shift


def check_lens(distortion: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """Model and coefficients of an info file's ``distortion``.

    Raises:
        ValueError: A model that is not known, or the wrong number of coefficients; both by name.
    """
    if not isinstance(distortion, Mapping):
        raise ValueError(f'distortion has a model and coefficients; got {distortion!r}')
    model = distortion.get('model')
    if model not in LENSES:
        raise ValueError(
            f'distortion model {model!r} is none of {sorted(LENSES)}: rectify the images, or state '
            "the lens in one of these models (OpenCV's coefficients)"
        )
    coefficients = np.asarray(distortion.get('coefficients', ()), dtype=np.float64).ravel()
    if len(coefficients) not in LENSES[model] or not np.isfinite(coefficients).all():
        raise ValueError(
            f'distortion model {model!r} takes {LENSES[model]} finite coefficients, '
            f'got {coefficients.tolist()}'
        )
    return model, coefficients


def distort(
    camera: np.ndarray, cam2img: np.ndarray, model: str, coefficients: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project camera points through a lens, by OpenCV's models.

    Brown's polynomial turns back at some angle, and points far outside the image would be folded
    into it: those are marked.

    Args:
        camera: (M, 3) points in front of the camera, metres.
        cam2img: (3, 3) intrinsics.
        model: 'brown' or 'fisheye'.
        coefficients: In OpenCV's order (k1, k2, p1, p2, k3, ...; fisheye: k1 to k4).

    Returns:
        Pixels (M, 2), and valid (M,) bool: False beyond the angle where the model turns back.
    """
    if not len(camera):
        return np.zeros((0, 2)), np.zeros(0, dtype=bool)
    coefficients = np.asarray(coefficients, dtype=np.float64)
    points = np.ascontiguousarray(camera[:, None], dtype=np.float64)
    zero = np.zeros(3)
    if model == 'fisheye':
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, cam2img, coefficients)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, cam2img, coefficients)
    across = np.hypot(camera[:, 0], camera[:, 1]) / camera[:, 2]
    return pixels[:, 0], across < _turning_point(model, coefficients)


def _turning_point(model: str, coefficients: np.ndarray) -> float:
    """Tangent of the angle up to which the distorted radius still grows."""
    angle = np.linspace(0.0, np.pi / 2, 4001)[1:-1]
    if model == 'fisheye':
        radius = angle * (1 + sum(k * angle ** (2 * i + 2) for i, k in enumerate(coefficients)))
    else:
        k = np.zeros(14)
        k[: len(coefficients)] = coefficients
        r2 = np.tan(angle) ** 2
        top = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
        bottom = 1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7]))
        radius = np.tan(angle) * top / bottom
    falling = np.flatnonzero(np.diff(radius) <= 0)
    return float(np.tan(angle[falling[0]])) if len(falling) else np.inf
