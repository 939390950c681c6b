"""Shapes of what stands still: buildings, trees, hedges, poles, signs, fences, benches."""

from __future__ import annotations

import numpy as np

from s3pt_mm.toydrive.materials import BRICKS, FACADE, FOLIAGE, Materials
from s3pt_mm.toydrive.shapes import Shape
from s3pt_mm.toydrive.taxonomy import (
    BUILDING,
    FENCE,
    POLE,
    STATIC,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    WALL,
)


def building(rng: np.random.Generator, m: Materials, width: float, depth: float) -> Shape:
    """A house in metres: origin at its front's middle, front along x facing -y, body towards +y."""
    shape = Shape()
    storey = rng.uniform(2.8, 3.8)
    storeys = int(rng.choice([1, 2, 3, 4, 6, 9], p=[0.12, 0.26, 0.26, 0.18, 0.12, 0.06]))
    height = storey * storeys + rng.uniform(0.3, 1.2)
    facade = m.add(
        BUILDING,
        kind=FACADE,
        scale=rng.uniform(1.6, 4.2),  # window spacing
        a=storey,
        b=rng.uniform(0.35, 0.75),  # share of glass
        gloss=0.0,
        glow=rng.uniform(0.0, 0.6),
    )
    side = m.add(BUILDING, kind=BRICKS, scale=rng.uniform(0.25, 0.6), a=rng.uniform(0, 1))
    roof, trim = m.add(BUILDING), m.add(BUILDING)
    half = width / 2
    shape.box((-half, 0, 0), (half, depth, height), facade if rng.uniform() < 0.8 else side)
    if storeys <= 3 and rng.uniform() < 0.6:  # gable
        ridge = height + rng.uniform(1.5, 3.5)
        shape.prism([(-half - 0.4, height), (0.0, ridge), (half + 0.4, height)], depth / 2 + 0.4,
                    roof, cap_material=side, centre=depth / 2)  # fmt: skip
    else:
        shape.box((-half - 0.25, -0.25, height), (half + 0.25, depth, height + 0.5), trim)
        for _ in range(int(rng.integers(0, 3))):
            x, y = rng.uniform(-half + 1, half - 1), rng.uniform(1, max(depth - 1, 1.5))
            shape.box(
                (x - 0.8, y - 0.8, height), (x + 0.8, y + 0.8, height + rng.uniform(1, 2.5)), roof
            )
    shape.box((-half - 0.1, -0.12, 0), (half + 0.1, 0.1, rng.uniform(0.4, 1.0)), trim)
    door = rng.uniform(-half * 0.7, half * 0.7)
    shape.box((door - 0.6, -0.08, 0), (door + 0.6, 0.05, 2.2), m.add(BUILDING))
    if rng.uniform() < 0.5:  # awning of a shop
        shape.prism([(-half * 0.8, 2.6), (-half * 0.8, 2.8), (half * 0.8, 2.8), (half * 0.8, 2.6)],
                    [0.8, 0.1, 0.1, 0.8], m.stripes(BUILDING, 0.8), centre=-0.7)  # fmt: skip
    if storeys >= 3 and rng.uniform() < 0.5:  # balconies
        rail = m.add(BUILDING)
        for floor in range(1, storeys):
            for x in np.arange(-half + 2, half - 1.9, 4.5):
                z = floor * storey + 0.3
                shape.box((x - 1.0, -0.9, z), (x + 1.0, 0.0, z + 0.15), trim)
                shape.box((x - 1.0, -0.9, z), (x + 1.0, -0.84, z + 1.0), rail)
    return shape


def tree(rng: np.random.Generator, m: Materials) -> Shape:
    """A trunk with forks and a crown of lumps, or a conifer."""
    shape = Shape()
    green = np.array([rng.uniform(0.03, 0.16), rng.uniform(0.07, 0.22), rng.uniform(0.01, 0.06)])
    if rng.uniform() < 0.2:
        green = np.array([rng.uniform(0.2, 0.4), rng.uniform(0.1, 0.22), 0.03])
    leaves = m.add(VEGETATION, rgb=green, rgb2=green * rng.uniform(0.2, 0.5), kind=FOLIAGE,
                   scale=rng.uniform(0.4, 1.1))  # fmt: skip
    bark = m.add(VEGETATION, rgb=np.array([0.12, 0.08, 0.05]) * rng.uniform(0.5, 1.6))
    height, radius = rng.uniform(4.5, 9.0), rng.uniform(1.2, 2.3)
    if rng.uniform() < 0.2:
        shape.tube((0, 0, 0), (0, 0, height * 0.4), 0.16, bark)
        for z in np.linspace(0.2, 0.75, 4):
            shape.tube((0, 0, height * z), (0, 0, height * (z + 0.27)), radius * (1.05 - z), leaves,
                       end_radius=0.05, sections=9)  # fmt: skip
        return shape
    lean = rng.normal(0, 0.15, 2)
    top = (lean[0], lean[1], height * 0.6)
    shape.tube((0, 0, 0), top, rng.uniform(0.12, 0.24), bark, end_radius=0.08)
    for _ in range(int(rng.integers(3, 6))):
        offset = rng.normal(0, 0.4 * radius, 3)
        lump = radius * rng.uniform(0.55, 0.95)
        centre = (
            top[0] + offset[0],
            top[1] + offset[1],
            max(height * 0.75 + offset[2], lump + 2.0),
        )
        shape.tube((top[0], top[1], top[2] * 0.7), centre, 0.06, bark, sections=5)
        shape.ellipsoid(centre, (lump, lump, lump * 0.85), leaves, subdivisions=2, lumps=rng)
    return shape


def hedge(rng: np.random.Generator, m: Materials, length: float) -> Shape:
    """A clipped hedge along x, or a row of bushes."""
    shape = Shape()
    green = np.array([rng.uniform(0.04, 0.14), rng.uniform(0.08, 0.2), rng.uniform(0.02, 0.05)])
    leaves = m.add(VEGETATION, rgb=green, rgb2=green * 0.35, kind=FOLIAGE, scale=0.35)
    if rng.uniform() < 0.5:
        shape.box((0, -0.35, 0), (length, 0.35, rng.uniform(0.7, 1.5)), leaves, taper=(0.98, 0.8))
    else:
        for x in np.arange(0.6, length, 1.3):
            r = rng.uniform(0.5, 0.85)
            shape.ellipsoid((x, 0, r * 0.7), (r, r, r), leaves, subdivisions=1, lumps=rng)
    return shape


def fence(rng: np.random.Generator, m: Materials, length: float) -> Shape:
    """A wall, or a fence of posts and boards, along x."""
    shape = Shape()
    if rng.uniform() < 0.4:
        wall = m.add(WALL, kind=BRICKS, scale=rng.uniform(0.2, 0.5), a=rng.uniform(0, 1))
        shape.box((0, -0.12, 0), (length, 0.12, rng.uniform(0.8, 1.9)), wall)
        return shape
    board, post = m.add(FENCE), m.add(FENCE)
    high = rng.uniform(0.8, 1.6)
    for x in np.arange(0, length + 0.1, 2.0):
        shape.box((x - 0.06, -0.06, 0), (x + 0.06, 0.06, high + 0.1), post)
    for z in np.linspace(0.3, high, 3):
        shape.box((0, -0.03, z - 0.08), (length, 0.03, z + 0.08), board)
    return shape


def lamp_post(rng: np.random.Generator, m: Materials) -> Shape:
    """A street lamp; its arm reaches along +y over the road."""
    shape = Shape()
    metal = m.metal(POLE)
    high, reach = rng.uniform(6.5, 8.5), rng.uniform(1.2, 2.2)
    shape.tube((0, 0, 0), (0, 0, high), 0.11, metal, end_radius=0.06)
    shape.tube((0, 0, high - 0.1), (0, reach, high + 0.2), 0.045, metal, sections=6)
    shape.box((-0.12, reach - 0.35, high + 0.1), (0.12, reach + 0.35, high + 0.24), metal)
    shape.box((-0.1, reach - 0.3, high + 0.06), (0.1, reach + 0.3, high + 0.1),
              m.lamp(POLE, (0.7, 0.6, 0.4), 4.0))  # fmt: skip
    return shape


def sign(rng: np.random.Generator, m: Materials) -> Shape:
    """A plate on a post, facing -x."""
    shape = Shape()
    high = rng.uniform(2.1, 2.8)
    shape.tube((0, 0, 0), (0, 0, high + 0.2), 0.035, m.metal(POLE), sections=6)
    plate = m.stripes(TRAFFIC_SIGN, rng.uniform(0.3, 0.9))
    if rng.uniform() < 0.5:
        shape.tube((-0.06, 0, high), (-0.03, 0, high), 0.34, plate, sections=14)
    else:
        w, h = rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.5)
        shape.box((-0.06, -w, high - h), (-0.03, w, high + h), plate)
    return shape


def traffic_light(rng: np.random.Generator, m: Materials) -> Shape:
    """A signal on a post with an arm along +y; it faces -x."""
    shape = Shape()
    pole, dark = m.metal(POLE), m.dark(TRAFFIC_LIGHT)
    reach = rng.uniform(1.5, 3.0)
    shape.tube((0, 0, 0), (0, 0, 5.6), 0.09, pole)
    shape.tube((0, 0, 5.5), (0, reach, 5.6), 0.05, pole, sections=6)
    lit = int(rng.integers(0, 3))
    colours = ((0.7, 0.05, 0.03), (0.7, 0.45, 0.03), (0.05, 0.6, 0.2))
    for y, z in ((0.0, 2.9), (reach, 5.0)):
        shape.box((-0.14, y - 0.17, z - 0.5), (0.1, y + 0.17, z + 0.5), dark)
        for i, colour in enumerate(colours):
            on = i == lit
            light = m.lamp(TRAFFIC_LIGHT, colour if on else tuple(0.08 * c for c in colour),
                           1.2 if on else 0.0)  # fmt: skip
            zz = z + 0.31 * (1 - i)
            shape.tube((-0.17, y, zz), (-0.13, y, zz), 0.11, light, sections=10)
    return shape


def bench(rng: np.random.Generator, m: Materials) -> Shape:
    """A bench along x, or a planter box with a bush."""
    shape = Shape()
    wood = m.add(STATIC)
    if rng.uniform() < 0.5:
        shape.box((-0.8, -0.25, 0.4), (0.8, 0.25, 0.47), wood)
        shape.box((-0.8, 0.2, 0.47), (0.8, 0.26, 0.9), wood)
        for x in (-0.7, 0.7):
            shape.box((x - 0.05, -0.2, 0), (x + 0.05, 0.2, 0.4), m.metal(STATIC))
    else:
        shape.box((-0.7, -0.4, 0), (0.7, 0.4, 0.55), wood, taper=(1.1, 1.1))
        shape.extend(hedge(rng, m, 1.2), np.diag([1.0, 0.8, 0.7]), [-0.6, 0, 0.4])
    return shape
