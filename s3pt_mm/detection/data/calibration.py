"""Projection matrices of several cameras: how they are formed, and what is refused."""

from collections.abc import Mapping, Sequence

import numpy as np

from s3pt_mm.common.errors import DataError

PRINCIPAL_POINT_TOLERANCE = 0.2
"""Largest distance of the principal point from the image centre, as a share of the image size.

Choice of this package. nuScenes' cameras stay within 0.05; an image of half or twice the size
that its calibration was made for is off by 0.25 or more.
"""


def project_matrix(cam2img: Sequence[np.ndarray], lidar2cam: Sequence[np.ndarray]) -> np.ndarray:
    """Matrices from LiDAR coordinates to pixels.

    Args:
        cam2img: V intrinsic matrices, (3, 3) or (4, 4), pixels.
        lidar2cam: V transforms (4, 4), metres.

    Returns:
        (V, 4, 4) float64; M @ (x, y, z, 1) = (u depth, v depth, depth, 1).
    """
    matrices = []
    for intrinsic, extrinsic in zip(cam2img, lidar2cam, strict=True):
        padded = np.eye(4)
        padded[: len(intrinsic), : len(intrinsic)] = intrinsic
        matrices.append(padded @ np.asarray(extrinsic, np.float64))
    return np.stack(matrices)


def project(points: np.ndarray, lidar2img: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of points; pixels of points at or behind the camera mean nothing.

    Args:
        points: (..., 3) metres in LiDAR coordinates.
        lidar2img: (4, 4).

    Returns:
        (..., 2) pixels (x, y) and (...,) depth in metres.
    """
    homogeneous = points @ lidar2img[:3, :3].T + lidar2img[:3, 3]
    depth = homogeneous[..., 2]
    safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    return homogeneous[..., :2] / safe[..., None], depth


def check_calibration(info: Mapping, *, camera: str, sample: object) -> None:
    """Refuses calibration that would poison a loss or put boxes anywhere.

    Args:
        info: One camera's entry of the info file with ``img_path``, ``cam2img``, ``lidar2cam``.
        camera: Name for messages.
        sample: Token for messages.

    Raises:
        DataError: A matrix is absent, has another shape, is not finite or cannot be inverted.
    """
    remedy = 'Correct calibrated_sensor.json and create the info file again, or drop the sample'
    for key, shapes in (('cam2img', ((3, 3), (4, 4))), ('lidar2cam', ((4, 4),))):
        problem = ''
        matrix = np.asarray(info.get(key, np.empty(0)), np.float64)
        if matrix.shape not in shapes:
            problem = f'has shape {matrix.shape}, expected {" or ".join(map(str, shapes))}'
        elif not np.isfinite(matrix).all():
            problem = f'is not finite: {matrix.tolist()}'
        elif abs(np.linalg.det(matrix)) < 1e-9:
            problem = f'cannot be inverted: {matrix.tolist()}'
        if problem:
            raise DataError(
                info['img_path'], f'{key} of {camera} in sample {sample} {problem}', remedy
            )


def check_image_fits_calibration(
    info: Mapping, size: tuple[int, int], *, camera: str, sample: object
) -> None:
    """Refuses an image of another size than its calibration was made for.

    The size is compared with ``height`` and ``width`` where the info file has them. In any case
    the principal point has to lie near the centre, see :data:`PRINCIPAL_POINT_TOLERANCE`.

    Args:
        info: One camera's entry of the info file.
        size: (height, width) of the decoded image, pixels.
        camera: Name for messages.
        sample: Token for messages.

    Raises:
        DataError: Image and calibration disagree.
    """
    height, width = size
    found = f'the image of {camera} in sample {sample} is {width} x {height} pixels'
    remedy = 'Scale cam2img with the image, or restore the original image'
    declared = (info.get('height') or height, info.get('width') or width)
    if declared != (height, width):
        raise DataError(
            info['img_path'],
            f'{found}, its calibration is for {declared[1]} x {declared[0]}',
            remedy,
        )
    centre = np.asarray(info['cam2img'], np.float64)[:2, 2]
    if (np.abs(centre / (width, height) - 0.5) > PRINCIPAL_POINT_TOLERANCE).any():
        raise DataError(
            info['img_path'],
            f'{found}, but its principal point is ({centre[0]:.1f}, {centre[1]:.1f})',
            remedy,
        )
