"""Things without a label that are made of what cars and people are made of.

Paint in stripes and patches, glass, rubber, lamps and skin tones are on vans without wheels as on
vans: kiosks, containers, posters of cars, heaps of tyres, shop dummies. Texture alone is therefore
not the class, and where a car may stand something else may stand too.
"""

from __future__ import annotations

import numpy as np

from s3pt_mm.toydrive.materials import Materials
from s3pt_mm.toydrive.shapes import Shape
from s3pt_mm.toydrive.taxonomy import STATIC


def distractor(rng: np.random.Generator, m: Materials, length: float) -> Shape:
    """Something of a car's or van's size on at most ``length`` metres along x, at most 2 m deep."""
    draw = (_container, _kiosk, _poster, _heap)[int(rng.integers(4))]
    return draw(rng, m, float(np.clip(length, 1.5, 5.5)))


def small_distractor(rng: np.random.Generator, m: Materials) -> Shape:
    """Something of a person's size: a dummy on a stand, a cabinet, a letter box."""
    shape = Shape()
    paint = m.paint(STATIC)
    if rng.uniform() < 0.5:  # a bust without legs on a plinth
        shape.box((-0.25, -0.25, 0), (0.25, 0.25, rng.uniform(0.5, 0.9)), m.paint(STATIC))
        shape.tube((0, 0, 0.5), (0, 0, 1.45), 1.0, paint, squash=(0.14, 0.22, 1))
        shape.ellipsoid((0, 0, 1.6), (0.1, 0.09, 0.13), m.skin(STATIC))
        return shape
    high = rng.uniform(0.9, 1.7)
    shape.box((-0.3, -0.2, 0), (0.3, 0.2, high), paint)
    shape.box((-0.32, -0.22, high), (0.32, 0.22, high + 0.08), m.dark(STATIC))
    shape.box((-0.2, -0.23, 0.4 * high), (0.2, -0.2, 0.8 * high), m.stripes(STATIC, 0.2))
    return shape


def _container(rng: np.random.Generator, m: Materials, length: float) -> Shape:
    """A steel box or skip, ribbed, on dark skids."""
    shape = Shape()
    half, high = length / 2, rng.uniform(1.2, 2.6)
    paint, dark = m.paint(STATIC), m.dark(STATIC)
    shape.box((-half, -0.95, 0.12), (half, 0.95, high), paint, taper=(rng.uniform(0.9, 1.1), 1.0))
    for x in np.arange(-half + 0.3, half, 0.6):
        shape.box((x - 0.05, -1.0, 0.2), (x + 0.05, 1.0, high - 0.1), paint)
    for x in (-0.7 * half, 0.7 * half):
        shape.box((x - 0.3, -0.9, 0.0), (x + 0.3, 0.9, 0.14), dark)
    return shape


def _kiosk(rng: np.random.Generator, m: Materials, length: float) -> Shape:
    """A stall with a band of glass, lamps and a roof: a van without wheels."""
    shape = Shape()
    half, high = length / 2, rng.uniform(1.7, 2.5)
    paint = m.paint(STATIC)
    shape.box((-half, -0.9, 0), (half, 0.9, high), paint)
    shape.box((-0.9 * half, -0.93, 0.45 * high), (0.9 * half, 0.93, 0.85 * high), m.glass(STATIC))
    shape.box((-half - 0.2, -1.0, high), (half + 0.2, 1.0, high + 0.12), m.paint(STATIC))
    lamp = m.lamp(STATIC, (0.8, 0.8, 0.75), 1.2)
    for x in (-0.8 * half, 0.8 * half):
        shape.box((x - 0.1, -0.95, 0.3 * high), (x + 0.1, 0.95, 0.36 * high), lamp)
    return shape


def _poster(rng: np.random.Generator, m: Materials, length: float) -> Shape:
    """A board along x that shows a car, flat, on both sides: body, glass, wheels, lamps."""
    shape = Shape()
    half = length / 2
    low = rng.uniform(0.3, 1.0)
    shape.box((-half, -0.05, low), (half, 0.05, low + 0.62 * half + 0.5), m.paint(STATIC))
    for x in (-0.9 * half, 0.9 * half):
        shape.box((x - 0.06, -0.06, 0), (x + 0.06, 0.06, low), m.metal(STATIC))
    a, w = low + 0.12, 0.75 * half  # of the picture
    h = 0.6 * w
    shape.box((-w, -0.06, a + 0.1 * h), (w, 0.06, a + 0.55 * h), m.paint(STATIC))
    shape.prism([(-0.6 * w, a + 0.55 * h), (-0.4 * w, a + h), (0.3 * w, a + h),
                 (0.55 * w, a + 0.55 * h)], 0.065, m.glass(STATIC))  # fmt: skip
    dark, lamp = m.dark(STATIC), m.lamp(STATIC, (0.8, 0.8, 0.75), 1.2)
    for x in (-0.6 * w, 0.6 * w):
        shape.tube((x, -0.07, a + 0.15 * h), (x, 0.07, a + 0.15 * h), 0.15 * h, dark, sections=12)
    shape.box((0.85 * w, -0.07, a + 0.35 * h), (w, 0.07, a + 0.45 * h), lamp)
    return shape


def _heap(rng: np.random.Generator, m: Materials, length: float) -> Shape:
    """Tyres, drums and sheeted goods side by side."""
    shape = Shape()
    for x in np.arange(-length / 2 + 0.5, length / 2 - 0.4, 1.0):
        if rng.uniform() < 0.5:
            for level in range(int(rng.integers(2, 5))):
                z = 0.22 * level
                shape.tube((x, 0, z), (x, 0, z + 0.2), 0.34, m.dark(STATIC), sections=12)
        else:
            high = rng.uniform(0.6, 1.5)
            shape.box((x - 0.45, -0.6, 0), (x + 0.45, 0.6, high), m.paint(STATIC), taper=(0.9, 0.8))
            shape.box((x - 0.3, -0.62, 0.1), (x + 0.3, 0.62, 0.3), m.metal(STATIC))
    return shape
