"""Colour jitter, grey, blur and solarise on the crop, drawn anew at every call.

Order and meaning are those of DINO's augmentation (torchvision's ``ColorJitter``,
``RandomGrayscale``, a Gaussian blur, ``RandomSolarize``); results equal torchvision's within
rounding, which differs because torchvision rounds down after each step and this rounds to nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow and torchvision
_LEVELS = np.arange(256, dtype=np.float32)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with black: ``factor * image``. (h, w, 3) uint8 in and out, as all functions here."""
    return cv2.LUT(image, _to_uint8(_LEVELS * factor))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend with the image's mean grey."""
    mean = float(np.dot(cv2.mean(image)[:3], _GREY))
    return cv2.LUT(image, _to_uint8(mean + factor * (_LEVELS - mean)))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blend each pixel with its own grey."""
    return cv2.addWeighted(image, factor, to_grey(image), 1.0 - factor, 0.0)


def adjust_hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turn the hue by ``shift`` of the full circle."""
    # In float32: 8-bit HSV, which Pillow uses, has 256 hues and loses several levels.
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[..., 0] += 360.0 * (shift % 1.0)  # OpenCV takes hues modulo 360
    return cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def to_grey(image: np.ndarray) -> np.ndarray:
    """Grey in three equal channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, cut at three sigma (Pillow's, which DINO calls, approximates it by boxes)."""
    side = 2 * max(1, int(np.ceil(3.0 * sigma))) + 1
    kernel = cv2.getGaussianKernel(side, sigma)
    # Twice as fast as cv2.GaussianBlur, whose 8-bit path promises the same bits on every machine.
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


def solarise(image: np.ndarray, threshold: int = 128) -> np.ndarray:
    """Invert all values from ``threshold`` up."""
    return cv2.LUT(image, np.where(_LEVELS < threshold, _LEVELS, 255 - _LEVELS).astype(np.uint8))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


class Colours(NamedTuple):
    """One draw of :class:`Photometric`.

    Attributes:
        steps: (0 brightness, 1 contrast, 2 saturation or 3 hue; factor or shift), in their order.
        grey: Whether the colour is lost.
        sigma: Of the blur, pixels; None: no blur.
        solarize: Whether bright values are inverted.
    """

    steps: tuple[tuple[int, float], ...]
    grey: bool
    sigma: float | None
    solarize: bool


@dataclass(frozen=True)
class Photometric:
    """Random colours of one view (numbers: DINO, arXiv 2104.14294, public augmentation).

    Attributes:
        jitter_prob: probability of the colour jitter.
        brightness, contrast, saturation: factors are uniform in [max(0, 1 - x), 1 + x].
        hue: shift is uniform in [-hue, hue], of the full circle.
        grey_prob: probability of losing the colour.
        blur_prob: probability of the blur.
        blur_sigma: sigma is uniform in this range, in pixels of the view.
        solarize_prob: probability of solarisation.
        solarize_threshold: values from here up are inverted.
    """

    jitter_prob: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grey_prob: float
    blur_prob: float
    blur_sigma: tuple[float, float]
    solarize_prob: float
    solarize_threshold: int = 128

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> the same, with a draw of its own."""
        return self.apply(image, self.draw())

    def draw(self) -> Colours:
        """What happens to the next image, from NumPy's global generator."""
        steps: list[tuple[int, float]] = []
        if np.random.rand() < self.jitter_prob:
            steps = [
                (int(step), draw())
                for step in np.random.permutation(4)
                if (draw := self._adjustment(step)) is not None
            ]
        grey = np.random.rand() < self.grey_prob
        sigma = np.random.uniform(*self.blur_sigma) if np.random.rand() < self.blur_prob else None
        return Colours(tuple(steps), grey, sigma, np.random.rand() < self.solarize_prob)

    def _adjustment(self, step: int) -> Callable[[], float] | None:
        if step == 3:
            return partial(np.random.uniform, -self.hue, self.hue) if self.hue else None
        strength = (self.brightness, self.contrast, self.saturation)[step]
        return partial(_factor, strength) if strength else None

    def apply(self, image: np.ndarray, colours: Colours) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> the same, as drawn."""
        for step, factor in colours.steps:
            image = _ADJUST[step](image, factor)
        if colours.grey:
            image = to_grey(image)
        if colours.sigma is not None:
            image = gaussian_blur(image, colours.sigma)
        if colours.solarize:
            image = solarise(image, self.solarize_threshold)
        return image

    def as_row(self, colours: Colours) -> np.ndarray:
        """(11,) float32, as :func:`s3pt_mm.kernels.photometric.colour_views` wants it."""
        done = [step for step, _ in colours.steps]
        left = [step for step in range(4) if step not in done]
        row = np.array([*done, *left, 1, 1, 1, 0, 0, 0, 256], dtype=np.float32)
        for step, factor in colours.steps:
            row[4 + step] = factor
        row[8] = colours.grey
        row[9] = colours.sigma or 0
        row[10] = self.solarize_threshold if colours.solarize else 256
        return row


_ADJUST = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


def _factor(strength: float) -> float:
    return np.random.uniform(max(0.0, 1.0 - strength), 1.0 + strength)
