"""Bytes of ROS messages -> an image file, points."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from s3pt_mm.common.errors import DataError

# PointField.datatype -> NumPy.
_FIELDS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}


def encode_image(message: Any, topic: str) -> bytes:
    """Bytes of a JPEG or PNG: a compressed image as it is, a raw one as PNG.

    Raises:
        DataError: A pixel layout that is not known.
    """
    if hasattr(message, 'format'):
        return bytes(message.data)
    try:
        from rosbags.image import message_to_cvimage

        pixels = message_to_cvimage(message, 'bgr8')
    except ImportError as error:
        raise DataError(
            topic, f'reading raw images needs {error.name}', 'pip install "s3pt_mm[formats]"'
        ) from error
    except Exception as error:  # the library's own
        raise DataError(
            topic,
            f'pixels of layout {message.encoding!r} ({error})',
            'Record bgr8, rgb8, mono8, Bayer or compressed images',
        ) from error
    return cv2.imencode('.png', pixels)[1].tobytes()


def cloud_points(message: Any) -> np.ndarray:
    """(M, 3 or 4) float32 x, y, z, intensity of a PointCloud2; points without return left out."""
    wanted = [f for f in message.fields if f.name in ('x', 'y', 'z', 'intensity')]
    order = '>' if message.is_bigendian else '<'
    dtype = np.dtype(
        {
            'names': [f.name for f in wanted],
            'formats': [order + _FIELDS[f.datatype] for f in wanted],
            'offsets': [f.offset for f in wanted],
            'itemsize': message.point_step,
        }
    )
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.row_step)
    rows = np.ascontiguousarray(rows[:, : message.width * message.point_step])
    points = rows.reshape(-1).view(dtype)
    names = [name for name in ('x', 'y', 'z', 'intensity') if name in dtype.names]
    points = np.stack([points[name].astype(np.float32) for name in names], axis=1)
    return points[np.isfinite(points[:, :3]).all(axis=1)]
