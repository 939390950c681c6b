"""Reading an image file; pixels are decoded later, when the crops are known.

A host's loader, which decodes at once, may stand in place of ``LoadImage``.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import cv2
import numpy as np
import simplejpeg
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError
from torch.utils.data import get_worker_info

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.shards import read_bytes

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ORIENTATION = 0x0112  # EXIF
_TORN = 'Copy the file again from its source, or drop it from the dataset'
_WRITE = 'Write it as 8 or 16 bits a channel, or drop it from the dataset'
_said: set[int] = set()


class EncodedImage:
    """The bytes of an image file and its size; ``decode`` makes pixels.

    A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the cost, because its
    decoder then leaves out frequencies that the smaller image cannot hold.

    Grey and palette images become RGB; transparency is ignored, so a pixel has the colour that the
    file stores under it; of several pages or frames the first counts.

    Args:
        data: content of the file.
        path: for messages.
        upright: turn the pixels as EXIF says. False for images with a calibration or a mask, which
            count the pixels as they are stored (a TIFF's are turned either way).
        bits: that a 16-bit image uses, 9 to 16; default: the fewest of 10, 12, 14 and 16 that hold
            its largest value, said once. Choice of this package: cameras of 10 and 12 bits store
            PNGs and TIFFs of 16.

    Attributes:
        size: (width, height) in pixels at full size, as ``decode`` gives them.
        is_jpeg: whether reduced decoding saves work.

    Raises:
        DataError: if the file is empty, its header unreadable, or the image too large.
    """

    def __init__(
        self, data: bytes, path: str, *, upright: bool = False, bits: int | None = None
    ) -> None:
        self.data, self.path, self.bits = data, path, bits
        try:
            with Image.open(io.BytesIO(data)) as header:
                self.size: tuple[int, int] = header.size
                self.is_jpeg: bool = header.format in ('JPEG', 'MPO')
                is_tiff = self._is_tiff = header.format == 'TIFF'
                # OpenCV's TIFF reader makes transparent pixels black.
                self._with_pillow = is_tiff and 'A' in header.mode
                turned = upright and not is_tiff
                self._turn = int(header.getexif().get(_ORIENTATION, 1)) if turned else 1
        except Image.DecompressionBombError as error:
            raise DataError(path, str(error), 'Store it smaller') from error
        except Exception as error:
            kind = 'of no known format' if isinstance(error, UnidentifiedImageError) else error
            problem = f'not a readable image ({kind})' if data else 'the file is empty'
            raise DataError(path, problem, _TORN) from error
        if 5 <= self._turn <= 8:
            self.size = self.size[::-1]

    @property
    def turned(self) -> bool:
        """Whether EXIF turns or mirrors the stored pixels."""
        return 2 <= self._turn <= 8

    def decode(self, reduction: int = 1) -> np.ndarray:
        """Pixels, RGB uint8 (ceil(height / reduction), ceil(width / reduction), 3).

        Args:
            reduction: 1, 2, 4 or 8.

        Raises:
            DataError: if the data is torn.
        """
        width, height = self.size[::-1] if 5 <= self._turn <= 8 else self.size
        expected = (-(-height // reduction), -(-width // reduction), 3)
        if self.is_jpeg:
            image = self._decode_jpeg(*expected[:2])
        else:
            image = self._decode_other(reduction)
        if image.shape != expected:
            problem = f'decoding gave an image of shape {image.shape} instead of {expected}'
            raise DataError(self.path, problem, _TORN)
        return _turned(image, self._turn)

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

    def _decode_other(self, reduction: int) -> np.ndarray:
        flags = _REDUCED[reduction] | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
        # Pillow reads AVIF and GIF, and refuses a TIFF with a hole, which OpenCV paints.
        if image is None or self._is_tiff:
            try:
                with Image.open(io.BytesIO(self.data)) as file:
                    file.load()
                    if image is None or (self._with_pillow and image.dtype == np.uint8):
                        wide = file.mode in ('F', 'I')  # conversion would clip
                        image = np.asarray(file if wide else file.convert('RGB'))[..., ::-1]
            except Exception as error:
                raise DataError(self.path, f'not a whole image ({error})', _TORN) from error
        if image.dtype == np.uint16:
            image = self._to_bytes(image)
        elif image.dtype != np.uint8:
            raise DataError(self.path, f'its pixels are {image.dtype}', _WRITE)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _to_bytes(self, image: np.ndarray) -> np.ndarray:
        """16-bit pixels as uint8, scaled by the bits that they use."""
        largest = int(image.max())
        bits = self.bits or next(b for b in (10, 12, 14, 16) if largest < 2**b)
        if largest >= 2**bits:
            raise DataError(self.path, f'a pixel is {largest}, beyond {bits} bits', 'Correct bits')
        worker = get_worker_info()
        if not self.bits and bits not in _said and (worker is None or worker.id == 0):
            _said.add(bits)
            print_log(
                f'{self.path}: 16-bit pixels up to {largest} are taken for {bits} bits; '
                'LoadImage(bits=...) says otherwise',
                'current',
                logging.WARNING,
            )
        return (image >> (bits - 8)).astype(np.uint8)


class LoadedImage:
    """Pixels of a host's loader, such as mmcv's ``LoadImageFromFile``, read as an
    :class:`EncodedImage` is.

    Args:
        pixels: (h, w, 3) uint8, BGR as OpenMMLab's loaders give them.
        path: for messages.

    Raises:
        DataError: for pixels of another kind.
    """

    is_jpeg = False

    def __init__(self, pixels: np.ndarray, path: str) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise DataError(
                path,
                f'its loader gave {pixels.dtype} of shape {pixels.shape}, not (h, w, 3) uint8',
                "Load it with dict(type='LoadImageFromFile'), or with dict(type='LoadImage')",
            )
        self.pixels, self.path = pixels, path
        self.size: tuple[int, int] = (pixels.shape[1], pixels.shape[0])

    def decode(self, reduction: int = 1) -> np.ndarray:
        """Pixels, RGB uint8; every ``reduction``-th one."""
        return cv2.cvtColor(self.pixels[::reduction, ::reduction], cv2.COLOR_BGR2RGB)


def image_of(results: dict[str, Any]) -> EncodedImage | LoadedImage:
    """The image of an item, whoever loaded it: ``LoadImage``, or a host's loader.

    Args:
        results: With ``img``: an :class:`EncodedImage`, a file's bytes, or BGR pixels.

    Raises:
        DataError: It is no image, or not of the size that the calibration is for.
    """
    image, path = results['img'], results.get('img_path', 'an image')
    if isinstance(image, bytes):
        image = EncodedImage(image, path, upright=results.get('upright', False))
    elif isinstance(image, np.ndarray):
        image = LoadedImage(image, path)
    expected = results.get('ori_size')
    if expected is not None and tuple(expected) != image.size:
        raise DataError(
            path,
            f'the image has {image.size[0]} x {image.size[1]} pixels, the info file says '
            f'{expected[0]} x {expected[1]}',
            'The calibration would not fit: use the original image, or correct the info file',
        )
    return image


def jpeg_of(image: EncodedImage | LoadedImage) -> np.ndarray:
    """(bytes,) uint8 of a JPEG whose pixels lie as they are seen.

    Raises:
        DataError: It is another format, decoded already, or EXIF turns it.
    """
    if not isinstance(image, EncodedImage) or not image.is_jpeg or image.turned:
        raise DataError(
            image.path,
            "decode_on='device' takes JPEG files that are stored upright, loaded by LoadImage",
            "Use decode_on='worker', or store the images with s3pt-prepare",
        )
    return np.frombuffer(image.data, np.uint8).copy()


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as EXIF's orientation 1 to 8 wants them seen; anything else turns nothing."""
    if not 2 <= orientation <= 8:
        return image
    if orientation in (2, 3):
        image = image[:, ::-1]
    if orientation in (3, 4):
        image = image[::-1]
    if orientation >= 5:
        image = image.swapaxes(0, 1)
        image = image[:, ::-1] if orientation in (6, 7) else image
        image = image[::-1] if orientation in (7, 8) else image
    return np.ascontiguousarray(image)


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path``, or the bytes of its ``img_span``, into ``img``, an :class:`EncodedImage`.

    Also sets ``ori_shape`` (height, width). If the item has ``ori_size`` (width, height), another
    size is an error, because the calibration belongs to that size. An item with ``upright`` is
    turned as EXIF says.

    Args:
        bits: see :class:`EncodedImage`.
    """

    def __init__(self, *, bits: int | None = None) -> None:
        if bits is not None and not 9 <= bits <= 16:
            raise ValueError(f'bits of a 16-bit image are 9 to 16, got {bits}')
        self.bits = bits

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        path = results['img_path']
        try:
            data = read_bytes(path, results.get('img_span'))
        except OSError as error:
            raise DataError(
                path,
                f'cannot read the image ({error.strerror})',
                'Check data_root and data_prefix, or run s3pt-check',
            ) from error
        upright = results.get('upright', False)
        results['img'] = EncodedImage(data, path, upright=upright, bits=self.bits)
        results['ori_shape'] = image_of(results).size[::-1]
        return results
