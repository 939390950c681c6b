"""The street: an arc of road with lanes, pavements and crossings, and its ground mesh.

Everything is placed in street coordinates: s metres along the centre line, d metres to its left.
The centre line is a circle arc of curvature k through the world's origin, heading along +x there,
so both directions of the map are closed forms, and the shader can ask any point for its lane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s3pt_mm.toydrive.materials import GROUND, Materials
from s3pt_mm.toydrive.shapes import Shape
from s3pt_mm.toydrive.taxonomy import ROAD, SIDEWALK, TERRAIN

KERB = 0.15  # metres that pavements lie above the road
SURFACES = (ROAD, SIDEWALK, TERRAIN)


@dataclass(frozen=True, kw_only=True)
class Street:
    """Measures of a street.

    Args:
        curvature: 1 / radius in 1/m, positive to the left; at least 1e-4 and at most 4e-3 in size,
            so that no point of the world lies beyond the circle's centre.
        start: First s of the world.
        end: Last s of the world.
        lanes: Driving lanes in each direction.
        lane_width: In metres.
        cycle_width: Of the cycle lane between driving and parking lane.
        parking_width: Of the parking lane.
        pavement: Width of the pavement.
        crossings: s of the side streets' centre lines.
        crossing_half: Half width of a side street.
    """

    curvature: float
    start: float
    end: float
    lanes: int
    lane_width: float = 3.5
    cycle_width: float = 1.5
    parking_width: float = 2.9
    pavement: float = 3.2
    crossings: tuple[float, ...] = ()
    crossing_half: float = 5.5

    @property
    def half(self) -> float:
        """Half width of the roadway, kerb to kerb."""
        return self.lanes * self.lane_width + self.cycle_width + self.parking_width

    def lane(self, index: int, side: int) -> float:
        """d of a driving lane's middle; index 0 is the innermost, side -1 goes forward."""
        return side * (index + 0.5) * self.lane_width

    def cycle_lane(self, side: int) -> float:
        """d of the cycle lane's middle."""
        return side * (self.lanes * self.lane_width + self.cycle_width / 2)

    def parking(self, side: int) -> float:
        """d of the parking lane's middle."""
        return side * (self.half - self.parking_width / 2)

    def heading(self, s: np.ndarray | float) -> np.ndarray:
        """Direction of the centre line at s, radians."""
        return self.curvature * np.asarray(s, dtype=np.float64)

    def to_world(self, s: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """(..., 2) world x and y of street coordinates."""
        s, d = np.broadcast_arrays(np.asarray(s, dtype=np.float64), np.asarray(d, dtype=np.float64))
        angle, k = self.curvature * s, self.curvature
        return np.stack(
            [
                np.sin(angle) / k - d * np.sin(angle),
                (1 - np.cos(angle)) / k + d * np.cos(angle),
            ],
            axis=-1,
        )

    def to_street(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Street coordinates (s, d) of world points."""
        k = self.curvature
        sign = np.sign(k)
        x = np.asarray(x, dtype=np.float64)
        below = 1 / k - np.asarray(y, dtype=np.float64)
        angle = np.arctan2(sign * x, sign * below)
        return angle / k, 1 / k - sign * np.hypot(x, below)

    def crossing_distance(self, s: np.ndarray | float) -> np.ndarray:
        """Distance along s to the nearest side street's centre line."""
        s = np.asarray(s, dtype=np.float64)
        if not self.crossings:
            return np.full(s.shape, 1e6)
        return np.min([np.abs(s - c) for c in self.crossings], axis=0)

    def surface(self, s: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Cityscapes label of the ground: road, sidewalk or terrain (uint8)."""
        across, along = np.abs(np.asarray(d)), self.crossing_distance(s)
        road = (across < self.half) | (along < self.crossing_half)
        walk = (across < self.half + self.pavement) | (along < self.crossing_half + self.pavement)
        return np.where(road, ROAD, np.where(walk, SIDEWALK, TERRAIN)).astype(np.uint8)

    def height(self, s: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Height of the ground, metres."""
        return np.where(self.surface(np.asarray(s), np.asarray(d)) == ROAD, 0.0, KERB)


def ground_materials(materials: Materials) -> int:
    """Add road, pavement and terrain (in this order); returns the road's number.

    Grounds vary as widely as houses and cars do: grey, brown or reddish roads, light or dark.
    """
    rng = materials.rng

    def muted(low: float, high: float, tint: float) -> np.ndarray:
        return np.clip(rng.uniform(low, high) * (1 + rng.uniform(-tint, tint, 3)), 0.02, 0.8)

    paint = np.array([0.75, 0.75, 0.72]) if rng.uniform() < 0.7 else np.array([0.7, 0.55, 0.15])
    first = materials.add(ROAD, rgb=muted(0.05, 0.3, 0.2), rgb2=paint, kind=GROUND)
    materials.add(SIDEWALK, rgb=muted(0.1, 0.5, 0.25), rgb2=muted(0.1, 0.4, 0.2), kind=GROUND,
                  scale=rng.uniform(0.5, 1.5))  # fmt: skip
    if rng.uniform() < 0.6:
        green = np.array([rng.uniform(0.06, 0.2), rng.uniform(0.1, 0.24), rng.uniform(0.02, 0.08)])
        materials.add(TERRAIN, rgb=green, rgb2=green * [1.4, 0.9, 0.8], kind=GROUND)
    else:
        materials.add(TERRAIN, rgb=muted(0.1, 0.4, 0.3), rgb2=muted(0.1, 0.4, 0.3), kind=GROUND)
    return first


def ground_shape(street: Street, materials: Materials) -> Shape:
    """The ground as quads in street coordinates, with kerb faces where heights differ."""
    material = ground_materials(materials)
    far = 150.0
    s_edges = set(np.arange(street.start, street.end + 4.0, 4.0))
    for c in street.crossings:
        s_edges -= {s for s in s_edges if abs(s - c) < street.crossing_half + 1}
        s_edges |= {c - street.crossing_half, c + street.crossing_half}
    s_edges = np.array(sorted(s_edges))
    d_edges = np.array([-far, -60.0, -street.half, 0.0, street.half, 60.0, far])
    s_mid = (s_edges[1:] + s_edges[:-1]) / 2
    d_mid = (d_edges[1:] + d_edges[:-1]) / 2
    z = street.height(s_mid[:, None], d_mid[None, :])  # (S, D) heights of the cells
    xy = street.to_world(s_edges[:, None], d_edges[None, :])

    def quads(corners: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        points = [np.concatenate([p.reshape(-1, 2), h.reshape(-1, 1)], axis=1) for p, h in corners]
        a, b, c, d = points
        return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])

    shape = Shape()
    shape.add(
        quads([(xy[:-1, :-1], z), (xy[1:, :-1], z), (xy[1:, 1:], z), (xy[:-1, 1:], z)]), material
    )
    lower, upper = z[:, :-1], z[:, 1:]
    step = lower != upper  # kerbs along the street
    a, b = xy[:-1, 1:-1][step], xy[1:, 1:-1][step]
    shape.add(
        quads([(a, lower[step]), (b, lower[step]), (b, upper[step]), (a, upper[step])]), material
    )
    lower, upper = z[:-1], z[1:]
    step = lower != upper  # kerbs across it, at side streets
    a, b = xy[1:-1, :-1][step], xy[1:-1, 1:][step]
    shape.add(
        quads([(a, lower[step]), (b, lower[step]), (b, upper[step]), (a, upper[step])]), material
    )
    return shape
