"""Random views that keep their geometry: boxes are drawn first and stay with their views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.transforms.image import EncodedImage, LoadedImage, image_of, jpeg_of
from s3pt_mm.data.transforms.photometric import Photometric

_ATTEMPTS = 10  # torchvision's RandomResizedCrop


def draw_box(
    image_size: tuple[int, int], scale: Sequence[float], ratio: Sequence[float], grid: int
) -> np.ndarray:
    """Box of a random resized crop, torchvision's rule, rounded to a grid.

    Args:
        image_size: (width, height).
        scale: range of the crop's share of the image's area.
        ratio: range of width / height, uniform in its logarithm.
        grid: the corners are multiples of this many pixels.

    Returns:
        (4,) int64: x0, y0, x1, y1 in source pixels.
    """
    width, height = (side - side % grid for side in image_size)
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_ATTEMPTS):
        area = width * height * np.random.uniform(*scale)
        aspect = math.exp(np.random.uniform(*log_ratio))
        w = grid * round(math.sqrt(area * aspect) / grid)
        h = grid * round(math.sqrt(area / aspect) / grid)
        if 0 < w <= width and 0 < h <= height:
            x0 = grid * np.random.randint((width - w) // grid + 1)
            y0 = grid * np.random.randint((height - h) // grid + 1)
            return np.array([x0, y0, x0 + w, y0 + h])
    # The largest centred box whose shape is allowed.
    w = min(width, grid * int(height * ratio[1] / grid))
    h = min(height, grid * int(width / ratio[0] / grid))
    x0, y0 = (grid * ((side - crop) // (2 * grid)) for side, crop in ((width, w), (height, h)))
    return np.array([x0, y0, x0 + w, y0 + h])


def resize(crop: np.ndarray, size: int) -> np.ndarray:
    """Bicubic, antialiased, (h, w, 3) -> (size, size, 3) uint8; Pillow's within rounding."""
    pixels = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None]
    planes = F.interpolate(pixels, size=(size, size), mode='bicubic', antialias=True)[0].numpy()
    return cv2.merge(list(planes))  # far faster than NumPy's transpose


@TRANSFORMS.register_module()
class MultiCropViews(BaseTransform):
    """DINO's global and local views; :class:`TwoViews` of CrIBo and S3PT are the globals alone.

    Takes the image of ``LoadImage``, or of mmcv's ``LoadImageFromFile`` with its file backends.
    Replaces ``results['img']`` by a list of (size, size, 3) uint8 RGB views, globals first, and
    adds ``view_boxes`` (V, 4) int64, x0, y0, x1, y1 in source pixels, and ``view_flips`` (V,) bool.
    Numbers: DINO (arXiv 2104.14294, public augmentation); scales: S3PT supplement, Tables 1-3.
    All draws come from NumPy's global generator, boxes first.

    Args:
        size: side of a global view.
        scale: area range of the global crops.
        num_local: number of local views.
        local_size: side of a local view.
        local_scale: area range of the local crops.
        ratio: range of width / height of every crop.
        flip_prob: probability of a mirrored view.
        jitter_prob: see :class:`Photometric`, as the others up to ``grey_prob``, ``blur_sigma``
            and ``solarize_threshold``; the same in every view.
        blur_prob: probability of blur in global views 1 and 2.
        solarize_prob: the same for solarisation.
        local_blur_prob: probability of blur in local views.
        max_reduction: largest factor (1, 2, 4, 8) by which a JPEG may be decoded smaller, when
            every crop still has at least as many pixels as its view. Corners of the boxes are
            multiples of it. 1 decodes in full. Choice of this package.
        allow_enlarging: accept images with a side shorter than ``size``; else they are an error.
            Choice of this package.
        colours_on: 'worker' colours each view here; 'device' leaves that to ``ViewsPreprocessor``
            on the accelerator and adds ``view_colours`` (V, 11), the same draws. Choice of this
            package.
        decode_on: 'worker' decodes and cuts here; 'device' leaves that, and the colours, to
            ``ViewsPreprocessor`` (nvJPEG on NVIDIA GPUs) and adds ``view_jpeg``, the file's bytes,
            and ``view_cuts`` (V, 6), boxes, flips and sizes, the same draws. JPEGs stored upright
            only. Choice of this package.
    """

    def __init__(
        self,
        *,
        size: int = 224,
        scale: tuple[float, float] = (0.25, 1.0),
        num_local: int = 10,
        local_size: int = 96,
        local_scale: tuple[float, float] = (0.05, 0.25),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        jitter_prob: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        grey_prob: float = 0.2,
        blur_prob: tuple[float, float] = (1.0, 0.1),
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        solarize_prob: tuple[float, float] = (0.0, 0.2),
        solarize_threshold: int = 128,
        local_blur_prob: float = 0.5,
        max_reduction: int = 2,
        allow_enlarging: bool = False,
        colours_on: str = 'worker',
        decode_on: str = 'worker',
    ) -> None:
        for name, value in (('colours_on', colours_on), ('decode_on', decode_on)):
            if value not in ('worker', 'device'):
                raise ValueError(f"{name} must be 'worker' or 'device', got {value!r}")
        self.decode_on = decode_on
        self.colours_on = 'device' if decode_on == 'device' else colours_on
        for name, value in (('scale', scale), ('local_scale', local_scale)):
            if not 0.0 < value[0] <= value[1] <= 1.0:
                raise ValueError(
                    f'{name} is a range of area shares within (0, 1], got {tuple(value)}'
                )
        if not 0.0 < ratio[0] <= ratio[1]:
            raise ValueError(f'ratio is a range of positive numbers, got {tuple(ratio)}')
        if max_reduction not in (1, 2, 4, 8):
            raise ValueError(f'max_reduction must be 1, 2, 4 or 8, got {max_reduction}')
        if len(blur_prob) != 2 or len(solarize_prob) != 2:
            raise ValueError(
                'blur_prob and solarize_prob have one probability for each global view, got '
                f'{blur_prob} and {solarize_prob}'
            )
        self.size, self.scale = size, tuple(scale)
        self.num_local, self.local_size, self.local_scale = (
            num_local,
            local_size,
            tuple(local_scale),
        )
        self.ratio, self.flip_prob = tuple(ratio), flip_prob
        self.max_reduction, self.allow_enlarging = max_reduction, allow_enlarging
        shared = {
            'jitter_prob': jitter_prob,
            'brightness': brightness,
            'contrast': contrast,
            'saturation': saturation,
            'hue': hue,
            'grey_prob': grey_prob,
            'blur_sigma': tuple(blur_sigma),
            'solarize_threshold': solarize_threshold,
        }
        local = Photometric(**shared, blur_prob=local_blur_prob, solarize_prob=0.0)
        self.photometric: list[Photometric] = [
            *(
                Photometric(**shared, blur_prob=blur, solarize_prob=solar)
                for blur, solar in zip(blur_prob, solarize_prob, strict=False)
            ),
            *[local] * num_local,
        ]
        self.sizes = [size] * 2 + [local_size] * num_local
        self.scales = [self.scale] * 2 + [self.local_scale] * num_local

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        image = image_of(results)
        if min(image.size) < self.size and not self.allow_enlarging:
            raise DataError(
                image.path,
                f'the image has {image.size[0]} x {image.size[1]} pixels, a view '
                f'{self.size} x {self.size}',
                'Leave it out, use a smaller view size, or set allow_enlarging=True',
            )
        if min(image.size) < self.max_reduction:
            raise DataError(
                image.path,
                f'the image has only {image.size[0]} x {image.size[1]} pixels',
                'Leave it out',
            )
        boxes = np.stack(
            [draw_box(image.size, scale, self.ratio, self.max_reduction) for scale in self.scales]
        )
        reduction = self.choose_reduction(image, boxes)
        pixels = image.decode(reduction) if self.decode_on == 'worker' else None
        views, flips, rows = [], [], []
        for box, size, photometric in zip(boxes, self.sizes, self.photometric, strict=False):
            if pixels is None:
                view = np.empty((size, 0, 3), np.uint8)  # only its size is asked for
            else:
                x0, y0, x1, y1 = box // reduction
                view = resize(pixels[y0:y1, x0:x1], size)
            flips.append(np.random.rand() < self.flip_prob)
            if flips[-1]:
                view = np.ascontiguousarray(view[:, ::-1])
            colours = photometric.draw()
            if self.colours_on == 'worker':
                view = photometric.apply(view, colours)
            else:
                rows.append(photometric.as_row(colours))
            views.append(view)
        if rows:
            results['view_colours'] = np.stack(rows)
        if pixels is None:
            results['view_jpeg'] = jpeg_of(image)
            results['view_cuts'] = np.column_stack([boxes, flips, self.sizes]).astype(np.float32)
        results.update(img=views, view_boxes=boxes, view_flips=np.array(flips, dtype=bool))
        return results

    def choose_reduction(self, image: EncodedImage | LoadedImage, boxes: np.ndarray) -> int:
        """Largest allowed decoding factor that leaves every crop at least as large as its view."""
        if not image.is_jpeg:
            return 1
        spare = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) / np.array(self.sizes)
        return max(
            factor
            for factor in (1, 2, 4, 8)
            if factor == 1 or factor <= min(self.max_reduction, spare.min())
        )


@TRANSFORMS.register_module()
class TwoViews(MultiCropViews):
    """The two global views of CrIBo and S3PT: :class:`MultiCropViews` without local views."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(num_local=0, **kwargs)
