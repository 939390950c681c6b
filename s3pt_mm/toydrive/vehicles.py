"""Cars, trucks, buses, trailers and construction machines out of parts.

Every builder returns a shape in box units (see ``shapes.Shape``); ``size`` is only there to keep
wheels round and details at their true size.
"""

from __future__ import annotations

import numpy as np

from s3pt_mm.toydrive.materials import Materials
from s3pt_mm.toydrive.shapes import Shape

Size = tuple[float, float, float]


def _wheels(
    shape: Shape,
    positions: list[float],
    radius: float,
    size: Size,
    tyre: int,
    hub: int,
    inset: float = 0.02,
) -> None:
    """Pairs of wheels at the given x, ``radius`` in metres."""
    width, length, height = size
    half = 0.13 / width
    for x in positions:
        for side in (-1, 1):
            y = side * (0.5 - half - inset)
            shape.wheel(
                (x, y, radius / height), (radius / length, radius / height), half, tyre, hub
            )


def _lights(shape: Shape, m: Materials, label: int, front: float, back: float, z: float) -> None:
    """Head and tail lamps at the corners of both ends."""
    head = m.lamp(label, (0.8, 0.8, 0.75), 1.6)
    tail = m.lamp(label, (0.45, 0.02, 0.02), 0.6)
    for side in (-1, 1):
        y = 0.36 * side
        shape.box((front - 0.01, y - 0.09, z - 0.035), (front + 0.004, y + 0.09, z + 0.035), head)
        shape.box((back - 0.004, y - 0.08, z - 0.05), (back + 0.01, y + 0.08, z + 0.05), tail)


def car(rng: np.random.Generator, m: Materials, size: Size, label: int) -> Shape:
    """Saloon, hatchback, off-roader, van or pick-up."""
    shape = Shape()
    body, glass, tyre, hub = m.paint(label), m.glass(label), m.dark(label), m.metal(label)
    trim = m.dark(label)
    style = rng.choice(['saloon', 'hatch', 'suv', 'van', 'pickup'], p=[0.34, 0.26, 0.22, 0.1, 0.08])
    belt = {'saloon': 0.56, 'hatch': 0.57, 'suv': 0.55, 'van': 0.52, 'pickup': 0.55}[style]
    nose = {'saloon': 0.47, 'hatch': 0.48, 'suv': 0.5, 'van': 0.5, 'pickup': 0.5}[style]
    shape.prism(
        [(-0.49, 0.17), (-0.5, 0.4), (-0.47, belt), (0.22, belt), (0.46, nose), (0.5, 0.36),
         (0.48, 0.17)],
        [0.46, 0.48, 0.47, 0.47, 0.45, 0.46, 0.44],
        body,
    )  # fmt: skip
    cabin = {
        'saloon': [(-0.4, belt), (-0.22, 0.98), (0.06, 1.0), (0.25, belt)],
        'hatch': [(-0.47, belt), (-0.4, 0.96), (0.04, 1.0), (0.25, belt)],
        'suv': [(-0.48, belt), (-0.45, 0.97), (0.08, 1.0), (0.24, belt)],
        'van': [(-0.48, belt), (-0.47, 0.98), (0.2, 1.0), (0.37, belt)],
        'pickup': [(-0.12, belt), (-0.1, 0.97), (0.1, 1.0), (0.26, belt)],
    }[style]
    shape.prism(cabin, [0.46, 0.39, 0.39, 0.46], glass)
    roof = [(x * 0.97, z - (0.02 if z > 0.9 else 0)) for x, z in cabin[1:3]]
    shape.box((roof[0][0], -0.4, 0.955), (roof[1][0], 0.4, 1.0), body)
    for x in (cabin[1][0] * 0.5 + cabin[2][0] * 0.5, cabin[2][0] - 0.01):  # door and wind posts
        shape.prism([(x - 0.012, belt), (x - 0.012, 0.97), (x + 0.012, 0.97), (x + 0.02, belt)],
                    [0.465, 0.4, 0.4, 0.465], body)  # fmt: skip
    if style == 'van':
        shape.box((-0.48, -0.47, belt), (-0.05, 0.47, 0.97), body, taper=(1.0, 0.85))
    if style == 'pickup':
        shape.box((-0.48, -0.4, belt - 0.02), (-0.14, 0.4, belt + 0.01), trim)
    shape.box((-0.505, -0.44, 0.17), (-0.46, 0.44, 0.28), trim)
    shape.box((0.46, -0.44, 0.17), (0.505, 0.44, 0.3), trim)
    shape.box((-0.4, -0.485, 0.15), (0.4, 0.485, 0.22), trim)
    shape.box((0.485, -0.12, 0.3), (0.507, 0.12, 0.37), m.add(label, rgb=(0.6, 0.6, 0.6)))
    for side in (-1, 1):
        shape.box((0.17, 0.47 * side - 0.03, belt), (0.2, 0.47 * side + 0.03, belt + 0.08), body)
        shape.box((-0.02, 0.482 * side - 0.004, 0.46), (0.03, 0.482 * side + 0.004, 0.48), trim)
    _lights(shape, m, label, 0.497, -0.5, 0.42)
    _wheels(shape, [-0.3, 0.31], 0.33, size, tyre, hub)
    return shape


def truck(rng: np.random.Generator, m: Materials, size: Size, label: int) -> Shape:
    """A cab with a box, a flat bed, a tank or a tipper behind it."""
    shape = Shape()
    body, load, glass = m.paint(label), m.paint(label), m.glass(label)
    tyre, hub, dark = m.dark(label), m.metal(label), m.dark(label)
    cab_start = 0.5 - min(0.34, 2.1 / size[1])
    shape.prism(
        [(cab_start, 0.2), (cab_start, 0.8), (0.42, 0.8), (0.5, 0.5), (0.5, 0.2)], 0.46, body
    )
    shape.prism([(cab_start + 0.05, 0.52), (cab_start + 0.05, 0.74), (0.427, 0.74), (0.492, 0.52)],
                0.467, glass)  # fmt: skip
    shape.prism([(0.44, 0.5), (0.42, 0.76), (0.43, 0.78), (0.506, 0.52)], 0.4, glass)
    shape.box((-0.48, -0.3, 0.16), (0.45, 0.3, 0.24), dark)
    back = cab_start - 0.02
    style = rng.choice(['box', 'bed', 'tank', 'tipper'], p=[0.5, 0.18, 0.14, 0.18])
    if style == 'box':
        shape.box((-0.5, -0.5, 0.26), (back, 0.5, 1.0), load)
        rib = m.metal(label)
        for x in np.linspace(-0.49, back - 0.01, 5):
            shape.box((x - 0.008, -0.505, 0.26), (x + 0.008, 0.505, 1.0), rib)
        shape.box((-0.507, -0.02, 0.28), (-0.5, 0.02, 0.97), rib)
    elif style == 'tank':
        shape.tube((-0.5, 0, 0.62), (back, 0, 0.62), 1.0, load, sections=14, squash=(1, 0.48, 0.38))
        shape.box((-0.4, -0.1, 0.97), (back - 0.05, 0.1, 1.0), dark)
    else:
        shape.box((-0.5, -0.5, 0.26), (back, 0.5, 0.32), load)
        wall = 0.52 if style == 'bed' else 0.72
        for side in (-1, 1):
            y = 0.485 * side
            shape.box((-0.5, y - 0.015, 0.3), (back, y + 0.015, wall), load)
        shape.box((-0.5, -0.5, 0.3), (-0.48, 0.5, wall), load)
        shape.box((back - 0.02, -0.5, 0.3), (back, 0.5, 0.9), load)
        for x in np.linspace(-0.4, back - 0.12, 3):
            high = rng.uniform(0.5, 1.0)
            shape.box((x - 0.07, -0.4, 0.3), (x + 0.08, 0.4, high), m.paint(label))
    for side in (-1, 1):
        shape.box((0.43, 0.49 * side - 0.03, 0.5), (0.45, 0.49 * side + 0.03, 0.7), dark)
    shape.box((0.48, -0.46, 0.12), (0.51, 0.46, 0.24), dark)
    _lights(shape, m, label, 0.507, -0.5, 0.29)
    radius = min(0.5, 0.19 * size[2])
    _wheels(shape, [-0.36, -0.36 + 1.1 / size[1], 0.36], radius, size, tyre, hub)
    return shape


def bus(
    rng: np.random.Generator, m: Materials, size: Size, label: int, *, bendy: bool = False
) -> Shape:
    """A city bus: long box, band of windows, doors, destination board, roof unit."""
    shape = Shape()
    body, band, glass = m.paint(label), m.paint(label), m.glass(label)
    tyre, hub, dark = m.dark(label), m.metal(label), m.dark(label)
    parts = [(-0.5, -0.06), (-0.01, 0.5)] if bendy else [(-0.5, 0.5)]
    for start, end in parts:
        shape.prism([(start, 0.09), (start, 0.9), (start + 0.02, 0.95), (end - 0.02, 0.95),
                     (end, 0.88), (end, 0.09)], 0.485, body)  # fmt: skip
        shape.box((start + 0.01, -0.492, 0.45), (end - 0.015, 0.492, 0.8), glass)
        shape.box((start + 0.005, -0.493, 0.25), (end - 0.005, 0.493, 0.34), band)
        for x in np.linspace(start + 0.02, end - 0.03, max(4, int((end - start) * 11))):
            shape.box((x - 0.006, -0.497, 0.44), (x + 0.006, 0.497, 0.81), body)
    if bendy:
        for i in range(4):
            x = -0.06 + 0.0125 * i
            shape.box(
                (x, -0.46 + 0.02 * (i % 2), 0.12), (x + 0.012, 0.46 - 0.02 * (i % 2), 0.92), dark
            )
    shape.box((0.485, -0.44, 0.38), (0.503, 0.44, 0.78), glass)
    shape.box((0.485, -0.36, 0.81), (0.505, 0.36, 0.9), m.lamp(label, (0.25, 0.16, 0.02), 0.5))
    shape.box((-0.503, -0.36, 0.5), (-0.49, 0.36, 0.76), glass)
    for x in (0.38, -0.05 if not bendy else 0.12):
        shape.box((x - 0.05, -0.5, 0.11), (x + 0.05, -0.49, 0.82), glass)
        shape.box((x - 0.004, -0.502, 0.11), (x + 0.004, -0.49, 0.82), dark)
    shape.box(
        (rng.uniform(-0.45, -0.3), -0.3, 0.95), (rng.uniform(-0.1, 0.1), 0.3, 1.0), m.metal(label)
    )
    _lights(shape, m, label, 0.5, -0.5, 0.2)
    axles = [-0.36, -0.2, 0.3] if bendy else [-0.28, 0.3]
    _wheels(shape, axles, 0.48, size, tyre, hub, inset=0.005)
    return shape


def trailer(rng: np.random.Generator, m: Materials, size: Size, label: int) -> Shape:
    """A lone semi-trailer: box, curtain or container on a frame with a drawbar and legs."""
    shape = Shape()
    load, dark, metal = m.paint(label), m.dark(label), m.metal(label)
    tyre, hub = m.dark(label), m.metal(label)
    shape.box((-0.48, -0.3, 0.22), (0.5, 0.3, 0.3), dark)
    shape.box((-0.5, -0.5, 0.3), (0.47, 0.5, 1.0), load)
    for x in np.linspace(-0.49, 0.46, int(rng.integers(6, 14))):
        shape.box((x - 0.005, -0.506, 0.3), (x + 0.005, 0.506, 1.0), metal)
    for z in (0.31, 0.985):
        shape.box((-0.503, -0.507, z - 0.012), (0.473, 0.507, z + 0.012), metal)
    shape.box((-0.508, -0.012, 0.32), (-0.5, 0.012, 0.97), dark)
    for side in (-1, 1):
        y = 0.3 * side
        shape.box((0.26, y - 0.03, 0.0), (0.28, y + 0.03, 0.25), metal)
        shape.box((-0.507, 0.3 * side - 0.01, 0.34), (-0.5, 0.3 * side + 0.01, 0.95), metal)
        shape.box((-0.2, 0.42 * side - 0.01, 0.14), (0.2, 0.42 * side + 0.01, 0.22), metal)
    tail = m.lamp(label, (0.45, 0.02, 0.02), 0.6)
    for side in (-1, 1):
        shape.box((-0.507, 0.4 * side - 0.05, 0.24), (-0.5, 0.4 * side + 0.05, 0.29), tail)
    _wheels(shape, [-0.42, -0.32, -0.22], 0.48, size, tyre, hub)
    return shape


def construction(rng: np.random.Generator, m: Materials, size: Size, label: int) -> Shape:
    """An excavator on tracks or a wheeled loader."""
    shape = Shape()
    body, arm, glass = m.paint(label), m.paint(label), m.glass(label)
    dark, metal = m.dark(label), m.metal(label)
    if rng.uniform() < 0.55:  # excavator
        for side in (-1, 1):
            y = 0.37 * side
            shape.prism([(-0.45, 0.02), (-0.5, 0.13), (-0.44, 0.24), (0.14, 0.24), (0.2, 0.13),
                         (0.15, 0.0)], 0.11, dark, centre=y)  # fmt: skip
            for x in np.linspace(-0.4, 0.1, 5):
                shape.wheel((x, y, 0.12), (0.045, 0.09), 0.115, metal, dark)
        shape.box((-0.5, -0.45, 0.28), (0.12, 0.45, 0.56), body, taper=(0.96, 0.95))
        shape.box((-0.5, -0.4, 0.5), (-0.2, 0.4, 0.66), body, taper=(0.8, 0.9))
        shape.box((-0.14, 0.05, 0.5), (0.1, 0.44, 0.92), glass, taper=(0.8, 0.9))
        shape.box((-0.13, 0.06, 0.9), (0.08, 0.43, 0.95), body)
        shape.tube((0.05, -0.12, 0.5), (0.26, -0.12, 0.98), 1.0, arm, squash=(0.03, 0.07, 0.05))
        shape.tube((0.25, -0.12, 0.97), (0.46, -0.12, 0.55), 1.0, arm, squash=(0.025, 0.05, 0.04))
        shape.tube((0.1, -0.12, 0.66), (0.3, -0.12, 0.8), 1.0, metal, squash=(0.01, 0.025, 0.02))
        shape.prism([(0.42, 0.55), (0.5, 0.5), (0.5, 0.25), (0.38, 0.2), (0.4, 0.4)], 0.2, metal)
    else:  # wheeled loader
        shape.box((-0.5, -0.36, 0.26), (-0.05, 0.36, 0.62), body, taper=(0.92, 0.9))
        shape.box((-0.1, -0.3, 0.24), (0.2, 0.3, 0.5), body)
        shape.box((-0.2, -0.33, 0.55), (0.05, 0.33, 0.96), glass, taper=(0.8, 0.92))
        shape.box((-0.21, -0.34, 0.95), (0.05, 0.34, 1.0), body)
        for side in (-1, 1):
            shape.tube((0.0, 0.22 * side, 0.52), (0.36, 0.22 * side, 0.2), 1.0, arm,
                       squash=(0.03, 0.04, 0.04))  # fmt: skip
        shape.prism([(0.33, 0.03), (0.31, 0.34), (0.36, 0.36), (0.38, 0.1), (0.5, 0.06),
                     (0.49, 0.0)], 0.5, metal)  # fmt: skip
        shape.tube((-0.4, 0.1, 0.6), (-0.4, 0.1, 0.85), 1.0, dark, squash=(0.012, 0.02, 1))
        _wheels(shape, [-0.3, 0.17], 0.26 * size[2], size, dark, metal, inset=0.0)
    beacon = m.lamp(label, (0.6, 0.3, 0.02), 0.8)
    shape.tube((-0.08, 0.2, 0.95), (-0.08, 0.2, 1.0), 1.0, beacon, squash=(0.015, 0.03, 1))
    return shape


def ego(m: Materials, label: int) -> Shape:
    """Bonnet and boot of the recording car, in metres around the ego origin (rear axle).

    Only what its own cameras can see: the boot low in the back camera, as in nuScenes.
    """
    shape = Shape()
    paint, glass = m.paint(label), m.glass(label)
    shape.prism([(-1.12, 0.5), (-1.12, 0.98), (-1.0, 1.1), (-0.45, 1.14), (-0.35, 0.5)],
                [0.82, 0.8, 0.74, 0.7, 0.8], paint)  # fmt: skip
    shape.prism([(-0.6, 1.1), (-0.42, 1.22), (-0.35, 1.22), (-0.35, 1.1)], 0.62, glass)
    shape.prism([(2.55, 0.5), (2.55, 0.95), (3.25, 0.87), (3.5, 0.7), (3.5, 0.5)],
                [0.8, 0.8, 0.72, 0.7, 0.7], paint)  # fmt: skip
    return shape
