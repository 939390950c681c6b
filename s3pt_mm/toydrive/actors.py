"""People, cycles and small movable objects out of parts, and the door to all object models."""

from __future__ import annotations

import numpy as np

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive import vehicles
from s3pt_mm.toydrive.materials import Materials, object_label
from s3pt_mm.toydrive.shapes import Shape

Size = tuple[float, float, float]


def pedestrian(
    rng: np.random.Generator, m: Materials, label: int, *, walking: bool, worker: bool = False
) -> Shape:
    """A person in metres-like proportions (later stretched into the box)."""
    shape = Shape()
    coat, legs, skin = m.paint(label), m.paint(label), m.skin(label)
    shoe, hair = m.dark(label), m.paint(label) if worker else m.dark(label)
    stride = rng.uniform(0.14, 0.3) if walking else rng.uniform(0.0, 0.05)
    for side in (-1, 1):
        foot = stride * side
        shape.tube(
            (foot, 0.1 * side, 0.06),
            (0.0, 0.09 * side, 0.86),
            0.075,
            legs,
            end_radius=0.1,
            sections=6,
        )
        shape.box(
            (foot - 0.08, 0.1 * side - 0.05, 0.0), (foot + 0.16, 0.1 * side + 0.05, 0.09), shoe
        )
        shape.tube(
            (0.0, 0.22 * side, 1.4),
            (-0.8 * foot, 0.28 * side, 0.84),
            0.06,
            coat,
            end_radius=0.045,
            sections=5,
        )
        shape.ellipsoid((-0.8 * foot, 0.28 * side, 0.8), (0.05, 0.04, 0.06), skin, subdivisions=0)
    low = rng.uniform(0.55, 0.85)
    shape.tube((0, 0, low), (0, 0, 1.45), 1.0, coat, end_radius=0.9, squash=(0.13, 0.2, 1))
    shape.ellipsoid((0, 0, 1.42), (0.12, 0.21, 0.1), coat)
    shape.tube((0, 0, 1.45), (0, 0, 1.56), 0.05, skin, sections=5)
    shape.ellipsoid((0.01, 0, 1.63), (0.1, 0.085, 0.13), skin)
    shape.ellipsoid((-0.02, 0, 1.68), (0.11, 0.095, 0.1), hair)
    if worker:
        shape.tube((0, 0, 0.95), (0, 0, 1.4), 1.0, m.stripes(label, 0.18), squash=(0.145, 0.215, 1))
        shape.tube((0.02, 0, 1.7), (0.02, 0, 1.71), 0.16, hair)
    elif rng.uniform() < 0.4:
        bag = m.paint(label)
        shape.box((-0.3, -0.15, 0.95), (-0.12, 0.15, 1.38), bag)
    return shape


def _rider(rng: np.random.Generator, m: Materials, saddle: float, reach: float) -> Shape:
    label = tx.RIDER
    shape = Shape()
    coat, legs, skin, helmet = m.paint(label), m.paint(label), m.skin(label), m.paint(label)
    hip, shoulder = (-0.18, 0.0, saddle), (0.12, 0.0, saddle + 0.5)
    shape.tube(hip, shoulder, 1.0, coat, squash=(0.13, 0.19, 0.13))
    shape.ellipsoid((0.17, 0, saddle + 0.68), (0.1, 0.09, 0.12), skin)
    shape.ellipsoid((0.15, 0, saddle + 0.74), (0.13, 0.11, 0.1), helmet)
    for side in (-1, 1):
        knee = (0.2, 0.13 * side, saddle - 0.12)
        shape.tube((-0.15, 0.1 * side, saddle), knee, 0.08, legs)
        shape.tube(knee, (0.02, 0.12 * side, saddle - 0.55), 0.06, legs)
        shape.tube(
            (0.12, 0.19 * side, saddle + 0.45), (reach, 0.24 * side, saddle + 0.2), 0.05, coat
        )
    return shape


def bicycle(rng: np.random.Generator, m: Materials, label: int, *, rider: bool) -> Shape:
    """Two ring wheels, a frame of tubes, saddle, bars; a basket or a rider."""
    shape = Shape()
    frame, dark, metal = m.paint(label), m.dark(label), m.metal(label)
    rear, front, crank = (-0.52, 0, 0.34), (0.52, 0, 0.34), (-0.06, 0, 0.3)
    seat, head = (-0.2, 0, 0.82), (0.38, 0, 0.86)
    for hub in (rear, front):
        shape.wheel(hub, (0.34, 0.34), 0.025, dark)
        for angle in np.linspace(0, np.pi, 4, endpoint=False):
            d = np.array([np.cos(angle), 0, np.sin(angle)]) * 0.3
            shape.tube(tuple(np.add(hub, d)), tuple(np.subtract(hub, d)), 0.008, metal, sections=3)
    for a, b in (
        (crank, seat),
        (seat, head),
        (crank, head),
        (crank, rear),
        (seat, rear),
        (head, front),
    ):
        shape.tube(a, b, 0.03, frame, sections=5)
    shape.box((-0.32, -0.08, 0.86), (-0.08, 0.08, 0.92), dark)
    shape.tube((0.36, 0, 0.85), (0.34, 0, 1.02), 0.022, metal, sections=5)
    shape.tube((0.36, -0.28, 1.02), (0.36, 0.28, 1.02), 0.022, dark, sections=5)
    for start in (rear, front):
        shape.box((start[0] - 0.25, -0.03, 0.7), (start[0] + 0.18, 0.03, 0.72), frame)
    if not rider and rng.uniform() < 0.6:
        shape.box((0.42, -0.17, 0.72), (0.72, 0.17, 0.98), m.paint(label))
    if rider:
        shape.extend(_rider(rng, m, 0.92, 0.34), np.eye(3), [0, 0, 0])
    return shape


def motorcycle(rng: np.random.Generator, m: Materials, label: int, *, rider: bool) -> Shape:
    """Two fat wheels, fork, engine, tank, seat, exhaust, screen."""
    shape = Shape()
    body, dark, metal = m.paint(label), m.dark(label), m.metal(label)
    for x in (-0.68, 0.7):
        shape.wheel((x, 0, 0.31), (0.31, 0.31), 0.08, dark, metal)
    shape.tube((0.7, 0, 0.31), (0.42, 0, 0.95), 0.06, metal)
    shape.box((-0.25, -0.18, 0.25), (0.3, 0.18, 0.58), metal, taper=(0.8, 0.7))
    shape.ellipsoid((0.15, 0, 0.75), (0.3, 0.18, 0.16), body, subdivisions=2)
    shape.prism([(-0.85, 0.8), (-0.75, 0.92), (-0.2, 0.78), (-0.1, 0.66), (-0.5, 0.62)], 0.15, body)
    shape.box((-0.6, -0.15, 0.76), (-0.08, 0.15, 0.86), dark)
    shape.tube((0.4, -0.38, 1.02), (0.4, 0.38, 1.02), 0.03, dark)
    shape.tube((-0.1, -0.2, 0.32), (-0.85, -0.22, 0.42), 0.06, metal)
    shape.prism(
        [(0.42, 0.85), (0.36, 1.2), (0.4, 1.2), (0.58, 0.85)],
        [0.2, 0.14, 0.14, 0.2],
        m.glass(label),
    )
    shape.ellipsoid((0.56, 0, 0.88), (0.08, 0.1, 0.09), m.lamp(label, (0.8, 0.8, 0.75), 1.6))
    shape.box((-0.9, -0.05, 0.78), (-0.85, 0.05, 0.84), m.lamp(label, (0.45, 0.02, 0.02), 0.6))
    shape.box((0.5, -0.09, 0.6), (0.9, 0.09, 0.64), body)
    if rider:
        shape.extend(_rider(rng, m, 0.9, 0.38), np.eye(3), [0, 0, 0])
    elif rng.uniform() < 0.5:
        shape.box((-0.95, -0.22, 0.86), (-0.6, 0.22, 1.2), m.paint(label))
    return shape


def cone(rng: np.random.Generator, m: Materials, label: int) -> Shape:
    """A cone in bands on a foot, or a drum."""
    shape = Shape()
    first, second = m.paint(label), m.paint(label)
    shape.box((-0.2, -0.2, 0.0), (0.2, 0.2, 0.05), m.dark(label))
    slim = rng.uniform() < 0.75
    radii = np.linspace(0.15, 0.025, 6) if slim else np.linspace(0.18, 0.15, 6)
    heights = np.linspace(0.05, 0.9, 6)
    for i in range(5):
        shape.tube((0, 0, heights[i]), (0, 0, heights[i + 1]), radii[i], (first, second)[i % 2],
                   end_radius=radii[i + 1], sections=12)  # fmt: skip
    return shape


def barrier(rng: np.random.Generator, m: Materials, label: int) -> Shape:
    """A concrete or plastic wall piece, or a board on legs; long side along y."""
    shape = Shape()
    if rng.uniform() < 0.65:
        shape.prism([(-0.3, 0.0), (-0.3, 0.1), (-0.12, 0.35), (-0.08, 0.9), (0.08, 0.9),
                     (0.12, 0.35), (0.3, 0.1), (0.3, 0.0)], 1.25, m.paint(label))  # fmt: skip
        band = m.stripes(label, 0.4)
        shape.box((-0.115, -1.2, 0.55), (0.115, 1.2, 0.75), band)
        for y in (-0.8, 0.8):
            shape.box((-0.31, y - 0.12, 0.0), (0.31, y + 0.12, 0.06), m.dark(label))
    else:
        for y in (-1.0, 1.0):
            for foot in (-0.25, 0.25):
                shape.tube((foot, y, 0.0), (0.0, y, 0.95), 0.04, m.metal(label), sections=5)
        for z in (0.85, 0.45):
            shape.box((-0.05, -1.25, z - 0.14), (0.05, 1.25, z + 0.14), m.stripes(label, 0.5))
    return shape


def bin_on_wheels(m: Materials, label: int) -> Shape:
    """A refuse bin (pushable_pullable)."""
    shape = Shape()
    shape.box((-0.26, -0.26, 0.1), (0.26, 0.26, 0.95), m.paint(label), taper=(1.15, 1.1))
    shape.box((-0.33, -0.3, 0.95), (0.33, 0.3, 1.03), m.paint(label))
    for side in (-1, 1):
        shape.wheel((-0.25, 0.25 * side, 0.1), (0.1, 0.1), 0.03, m.dark(label), m.metal(label))
    return shape


def debris(rng: np.random.Generator, m: Materials, label: int) -> Shape:
    """A heap of sacks and boxes."""
    shape = Shape()
    for _ in range(4):
        x, y = rng.uniform(-0.3, 0.3, 2)
        shape.ellipsoid((x, y, 0.18), (0.25, 0.2, 0.2), m.paint(label), lumps=rng)
    shape.box((-0.2, -0.25, 0.0), (0.25, 0.2, 0.5), m.paint(label))
    return shape


def draw_size(rng: np.random.Generator, category: str) -> Size:
    """Box (width, length, height) in metres: the class mean with a common and an own spread."""
    common, own = rng.normal(0, 0.05), rng.normal(0, 0.04, 3)
    factor = np.clip(1 + common + own, 0.82, 1.18)
    if category.startswith('human'):
        factor = np.clip(1 + 0.4 * common + own * [1, 1, 0.8], 0.85, 1.15)
    return tuple(float(v) for v in np.round(np.asarray(tx.SIZES[category]) * factor, 3))


def build(
    rng: np.random.Generator, m: Materials, category: str, size: Size, *, moving: bool
) -> Shape:
    """Model of one object, filling the box of ``size``; x forward, standing on z = 0."""
    label = object_label(category)
    if category == 'vehicle.car':
        shape = vehicles.car(rng, m, size, label)
    elif category == 'vehicle.truck':
        shape = vehicles.truck(rng, m, size, label)
    elif category.startswith('vehicle.bus'):
        shape = vehicles.bus(rng, m, size, label, bendy=category.endswith('bendy'))
    elif category == 'vehicle.trailer':
        shape = vehicles.trailer(rng, m, size, label)
    elif category == 'vehicle.construction':
        shape = vehicles.construction(rng, m, size, label)
    elif category == 'vehicle.motorcycle':
        shape = motorcycle(rng, m, label, rider=moving)
    elif category == 'vehicle.bicycle':
        shape = bicycle(rng, m, label, rider=moving)
    elif category.startswith('human'):
        shape = pedestrian(rng, m, label, walking=moving, worker=category.endswith('worker'))
    elif category == 'movable_object.trafficcone':
        shape = cone(rng, m, label)
    elif category == 'movable_object.barrier':
        shape = barrier(rng, m, label)
    elif category == 'movable_object.pushable_pullable':
        shape = bin_on_wheels(m, label)
    elif category == 'movable_object.debris':
        shape = debris(rng, m, label)
    else:
        raise KeyError(f'no model for category {category!r}')
    return shape.fill_box(size)
