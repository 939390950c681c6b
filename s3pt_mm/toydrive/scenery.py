"""Where things stand that do not move and are no annotated objects."""

from __future__ import annotations

import numpy as np

from s3pt_mm.toydrive.distractors import distractor, small_distractor
from s3pt_mm.toydrive.furniture import (
    bench,
    building,
    fence,
    hedge,
    lamp_post,
    sign,
    traffic_light,
    tree,
)
from s3pt_mm.toydrive.materials import Materials
from s3pt_mm.toydrive.shapes import Shape, rotation_z
from s3pt_mm.toydrive.street import KERB, Street


class _Placer:
    """Puts shapes into the world at street coordinates."""

    def __init__(self, street: Street, target: Shape) -> None:
        self.street, self.target = street, target

    def __call__(
        self, shape: Shape, s: float, d: float, turn: float = 0.0, *,
        width: float = 0.0, leans: bool = False,
    ) -> None:  # fmt: skip
        """Stand ``shape`` at (s, d): upright and, over ``width`` metres along the street, sunk to
        its lowest ground; or leaning with the land, as long low things do."""
        street = self.street
        xy = street.to_world(s, d)
        z = float(street.height(s, d)) - abs(float(street.slope(s))) * width / 2
        axes = rotation_z(float(street.heading(s)) + turn)
        if leans:
            axes = street.tilt(s, d) @ axes
        self.target.extend(shape, axes, [xy[0], xy[1], z])


def _front(
    rng: np.random.Generator, m: Materials, street: Street, put: _Placer, side: int, density: float
) -> None:
    """One side of the street from its start to its end: houses, gardens, gaps."""
    edge = street.half + street.pavement
    turn = 0.0 if side > 0 else np.pi
    s = street.start + 2.0
    while s < street.end - 6:
        width = rng.uniform(7, 20)
        middle = s + width / 2
        reach = street.crossing_half + street.pavement + width / 2
        if street.crossing_distance(middle) < reach:
            s += 2.0
            continue
        kind = rng.choice(['house', 'garden', 'grove'], p=[0.72, 0.14, 0.14])
        setback = rng.choice([0.3, rng.uniform(2.0, 6.0)], p=[0.5, 0.5])
        if kind == 'house':
            depth = rng.uniform(8, 14)
            put(building(rng, m, width - rng.choice([0.0, rng.uniform(0.5, 2.5)]), depth),
                middle, side * (edge + setback), turn, width=width)  # fmt: skip
        if kind != 'house' or setback > 1.5:
            line = hedge if rng.uniform() < 0.5 else fence
            put(
                line(rng, m, width - 2.0),
                middle - side * (width / 2 - 1.0),
                side * (edge + 0.5),
                turn,
                leans=True,
            )
        if kind == 'garden' and width > 9:
            put(distractor(rng, m, width - 3), middle, side * (edge + 3.2), turn, leans=True)
        trees = dict(house=0 if setback < 3.5 else 1, garden=1, grove=4)[kind]
        for _ in range(rng.poisson(trees * density)):
            d = edge + (2.6 if kind == 'house' else rng.uniform(2.6, 12))
            put(tree(rng, m), s + rng.uniform(1.5, width - 1.5), side * d)
        s += width


def _backdrop(rng: np.random.Generator, m: Materials, street: Street, put: _Placer) -> None:
    """A second row behind the first, and houses that close the street's and side streets' views."""
    for side in (-1, 1):
        s = street.start
        while s < street.end:
            width = rng.uniform(10, 30)
            if rng.uniform() < 0.6 and (
                street.crossing_distance(s + width / 2) > street.crossing_half + width / 2 + 3
            ):
                turn = 0.0 if side > 0 else np.pi
                put(building(rng, m, width, 12), s + width / 2, side * rng.uniform(45, 60), turn,
                    width=width)  # fmt: skip
            s += width
        for c in street.crossings:
            put(building(rng, m, 26, 12), c, side * 95, 0.0 if side > 0 else np.pi, width=26)
    for s, turn in ((street.end - 3, -np.pi / 2), (street.start + 3, np.pi / 2)):
        for d in np.arange(-42, 43, 21):
            put(building(rng, m, 20.5, 12), s, d, turn, width=24)


def furnish(
    rng: np.random.Generator, m: Materials, street: Street, density: float,
    left_free: list[tuple[float, float, float]],
) -> tuple[Shape, np.ndarray]:  # fmt: skip
    """All scenery of a street.

    Args:
        rng: Source of all draws.
        m: Gets the materials.
        street: Where.
        density: Relative number of things.
        left_free: (s, d, metres along the street) of the places that the traffic leaves to things
            without a label.

    Returns:
        The shape in world coordinates, and the lamps' (L, 3) positions for night light.
    """
    target = Shape()
    put = _Placer(street, target)
    lamps = []
    for side in (-1, 1):
        _front(rng, m, street, put, side, density)
        turn = np.pi if side > 0 else 0.0
        strip = side * (street.half + 0.55)  # lamps, trees and signs stand between kerb and walkers
        lamp = lamp_post(rng, m)
        tops = lamp.arrays()[0][..., 2].max()
        for i, s in enumerate(np.arange(street.start + 8, street.end - 4, 13.0 / density)):
            clear = street.crossing_distance(s) - street.crossing_half - 2.5
            if clear < 0:
                continue
            if i % 2 == 0:
                put(lamp, s, strip, turn)
                over = street.to_world(s, strip - side * 1.6)
                lamps.append([*over, tops + KERB + float(street.elevation(s))])
            elif rng.uniform() < 0.75:
                put(tree(rng, m), s, side * (street.half + 0.8))
            jitter = s + rng.uniform(3, 9)
            if street.crossing_distance(jitter) > street.crossing_half + 2:
                draw = rng.uniform()
                if draw < 0.35:
                    put(sign(rng, m), jitter, strip, 0.0 if side < 0 else np.pi)
                elif draw < 0.6:
                    thing = bench(rng, m) if draw < 0.45 else small_distractor(rng, m)
                    put(
                        thing,
                        jitter,
                        side * (street.half + street.pavement - 0.5),
                        turn + np.pi,
                    )
    for c in street.crossings:
        for side in (-1, 1):
            s = c + side * (street.crossing_half + 0.8)
            put(traffic_light(rng, m), s, side * (street.half + 0.6), 0.0 if side < 0 else np.pi)
    for s, d, length in left_free:
        put(distractor(rng, m, length), s, d, rng.choice([0.0, np.pi]), leans=True)
    _backdrop(rng, m, street, put)
    return target, np.asarray(lamps, dtype=np.float64).reshape(-1, 3)
