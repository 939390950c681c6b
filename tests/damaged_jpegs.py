"""What copying does to a JPEG; OpenCV and Pillow decode the first four without a word."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_noise(path: Path, width: int, height: int) -> Path:
    """A JPEG with structure in every block: in a plainer one a hole of 99 bytes may decode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    return path


DAMAGE = {
    'hole': lambda data: data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :],
    'small hole': lambda data: data[: len(data) // 2] + bytes(99) + data[len(data) // 2 + 99 :],
    'missing third': lambda data: data[: len(data) // 3] + data[2 * len(data) // 3 :],
    'half and an end mark': lambda data: data[: len(data) // 2] + b'\xff\xd9',
    'half': lambda data: data[: len(data) // 2],
    'zeros at the end': lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
}
BEYOND = {
    'empty': lambda data: b'',
    'zeros': lambda data: bytes(len(data)),
    'another file': lambda data: b'<html>404</html>',
    'its first bytes': lambda data: data[:20],
}
