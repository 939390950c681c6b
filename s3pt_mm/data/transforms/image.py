"""Reading an image file; pixels are decoded later, when the crops are known."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import simplejpeg
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from s3pt_mm.common.errors import DataError

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_TORN = 'Copy the file again from its source, or drop it from the dataset'


class EncodedImage:
    """The bytes of an image file and its size; ``decode`` makes pixels.

    A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the cost, because its
    decoder then leaves out frequencies that the smaller image cannot hold.

    Args:
        data: content of the file.
        path: for messages.

    Attributes:
        size: (width, height) in pixels at full size, without regard to EXIF rotation, as the
            calibration counts.
        is_jpeg: whether reduced decoding saves work.

    Raises:
        DataError: if the file is empty or its header unreadable.
    """

    def __init__(self, data: bytes, path: str) -> None:
        self.data, self.path = data, path
        try:
            with Image.open(io.BytesIO(data)) as header:
                self.size: tuple[int, int] = header.size
                self.is_jpeg: bool = header.format in ('JPEG', 'MPO')
        except Exception as error:
            problem = 'the file is empty' if not data else f'not a readable image ({error})'
            raise DataError(path, problem, _TORN) from error

    def decode(self, reduction: int = 1) -> np.ndarray:
        """Pixels, RGB uint8 (ceil(height / reduction), ceil(width / reduction), 3).

        Args:
            reduction: 1, 2, 4 or 8.

        Raises:
            DataError: if the data is torn.
        """
        width, height = self.size
        expected = (-(-height // reduction), -(-width // reduction), 3)
        if self.is_jpeg:
            image = self._decode_jpeg(*expected[:2])
        else:
            image = cv2.imdecode(
                np.frombuffer(self.data, np.uint8),
                _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION,
            )
            image = image if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if image is None or image.shape != expected:
            found = 'nothing' if image is None else f'an image of shape {image.shape}'
            raise DataError(self.path, f'decoding gave {found} instead of {expected}', _TORN)
        return image

    def _decode_jpeg(self, height: int, width: int) -> np.ndarray:
        # OpenCV uses the same library and gives the same pixels, but paints what is missing or
        # damaged, with a note on the error channel at best; here its warnings are errors.
        try:
            return simplejpeg.decode_jpeg(
                self.data, 'RGB', min_height=height, min_width=width, min_factor=1, strict=True
            )
        except ValueError as error:
            problem = f'the JPEG is torn or damaged ({error}; {len(self.data)} bytes)'
            raise DataError(self.path, problem, _TORN) from error


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read the bytes of ``img_path`` into ``img``, an :class:`EncodedImage`.

    Also sets ``ori_shape`` (height, width). If the item has ``ori_size`` (width, height), another
    size is an error, because the calibration belongs to that size.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        path = results['img_path']
        try:
            with open(path, 'rb') as file:
                data = file.read()
        except OSError as error:
            raise DataError(
                path,
                f'cannot read the image ({error.strerror})',
                'Check data_root and data_prefix, or run s3pt-check',
            ) from error
        image = EncodedImage(data, path)
        expected = results.get('ori_size')
        if expected is not None and tuple(expected) != image.size:
            raise DataError(
                path,
                f'the image has {image.size[0]} x {image.size[1]} pixels, the info file says '
                f'{expected[0]} x {expected[1]}',
                'The calibration would not fit: use the original image, or correct the info file',
            )
        results['img'] = image
        results['ori_shape'] = image.size[::-1]
        return results
