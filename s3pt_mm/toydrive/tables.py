"""Records that nuScenes and nuImages tables have in common, and writing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from s3pt_mm.toydrive.config import ToyDriveConfig
from s3pt_mm.toydrive.frames import token
from s3pt_mm.toydrive.sensors import Camera
from s3pt_mm.toydrive.taxonomy import ATTRIBUTES

Record = dict[str, Any]


def quaternion(rotation: np.ndarray) -> list[float]:
    """(w, x, y, z) of a (3, 3) rotation."""
    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return [float(w), float(x), float(y), float(z)]


def write_table(folder: Path, name: str, records: list[Record]) -> None:
    """One table as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(records, indent=0, allow_nan=False)
    (folder / f'{name}.json').write_text(text)


def write_image(path: Path, image: np.ndarray, *, quality: int | None = None) -> None:
    """A JPEG of the given quality, or a PNG where it is None.

    Raises:
        OSError: If the image cannot be encoded or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if quality is None:
        done, data = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    else:
        done, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OSError(f'{path}: OpenCV could not encode an image of shape {image.shape}')
    path.write_bytes(data.tobytes())


def categories(config: ToyDriveConfig, names: tuple[str, ...]) -> list[Record]:
    """The category table."""
    return [dict(token=token(config, 'category', n), name=n, description='') for n in names]


def attributes(config: ToyDriveConfig) -> list[Record]:
    """The attribute table."""
    return [dict(token=token(config, 'attribute', n), name=n, description='') for n in ATTRIBUTES]


def calibration(config: ToyDriveConfig, camera: Camera, *key: object) -> Record:
    """A camera's calibrated_sensor record."""
    return dict(
        token=token(config, 'calibration', *key, camera.name),
        sensor_token=token(config, 'sensor', camera.name),
        translation=camera.translation.tolist(),
        rotation=quaternion(camera.rotation),
        camera_intrinsic=camera.intrinsic.tolist(),
    )
