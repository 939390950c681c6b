"""The street: an arc of road with lanes, pavements and crossings, and its ground mesh.

Everything is placed in street coordinates: s metres along the centre line, d metres to its left.
The centre line is a circle arc of curvature k through the world's origin, heading along +x there,
so both directions of the map are closed forms, and the shader can ask any point for its lane. The
land rises and falls along s in gentle waves and is level across: its height is a closed form too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s3pt_mm.toydrive.materials import GROUND, Materials
from s3pt_mm.toydrive.shapes import Shape, rotation_z
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
        hills: (height in m, length in m, phase) of each wave of the land along s.
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
    hills: tuple[tuple[float, float, float], ...] = ()

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

    def elevation(self, s: np.ndarray | float) -> np.ndarray:
        """Height of the land at s, metres; 0 at s = 0."""
        s = np.asarray(s, dtype=np.float64)
        total = np.zeros_like(s)
        for high, length, phase in self.hills:
            total += high * (np.sin(2 * np.pi * s / length + phase) - np.sin(phase))
        return total

    def slope(self, s: np.ndarray | float) -> np.ndarray:
        """Rise of the land along the centre line, metres a metre."""
        s = np.asarray(s, dtype=np.float64)
        total = np.zeros_like(s)
        for high, length, phase in self.hills:
            total += 2 * np.pi * high / length * np.cos(2 * np.pi * s / length + phase)
        return total

    def height(self, s: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Height of the ground, metres."""
        return self.elevation(s) + self.kerb(s, d)

    def kerb(self, s: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Height of the ground above the land: 0 on the road, a kerb's elsewhere."""
        return np.where(self.surface(np.asarray(s), np.asarray(d)) == ROAD, 0.0, KERB)

    def tilt(self, s: float, d: float) -> np.ndarray:
        """(3, 3) smallest rotation that takes the vertical to the land's normal at a place."""
        rise = float(self.slope(s)) / (1 - self.curvature * d)  # a metre at d is shorter or longer
        angle, heading = np.arctan(rise), float(self.heading(s))
        turn = rotation_z(heading)
        c, n = np.cos(angle), np.sin(angle)
        pitch = np.array([[c, 0, -n], [0, 1, 0], [n, 0, c]])  # x along the street goes up
        return turn @ pitch @ turn.T


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
    # Two metres follow the waves within a millimetre.
    s_edges = set(np.arange(street.start, street.end + 2.0, 2.0))
    for c in street.crossings:
        s_edges -= {s for s in s_edges if abs(s - c) < street.crossing_half + 1}
        s_edges |= set(np.linspace(c - street.crossing_half, c + street.crossing_half, 7))
    s_edges = np.array(sorted(s_edges))
    d_edges = np.array([-far, -60.0, -street.half, 0.0, street.half, 60.0, far])
    s_mid = (s_edges[1:] + s_edges[:-1]) / 2
    d_mid = (d_edges[1:] + d_edges[:-1]) / 2
    kerb = street.kerb(s_mid[:, None], d_mid[None, :])  # (S, D) of the cells
    xy = street.to_world(s_edges[:, None], d_edges[None, :])
    land = np.broadcast_to(street.elevation(s_edges)[:, None], xy.shape[:2])

    def corner(rows: slice, columns: slice, above: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """(F, 3) vertices at grid nodes, ``above`` the land."""
        z = land[rows, columns] + above
        return np.concatenate([xy[rows, columns], z[..., None]], axis=-1)[chosen]

    def quads(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])

    here, there, inner = slice(None, -1), slice(1, None), slice(1, -1)
    shape = Shape()
    every = np.ones(kerb.shape, bool)
    corners = [(here, here), (there, here), (there, there), (here, there)]
    shape.add(quads(*(corner(r, c, kerb, every) for r, c in corners)), material)
    for axis in (1, 0):  # kerbs along the street, and across it at side streets
        low, high = (kerb[:, :-1], kerb[:, 1:]) if axis else (kerb[:-1], kerb[1:])
        ends = [(here, inner), (there, inner)] if axis else [(inner, here), (inner, there)]
        step = low != high
        order = ((ends[0], low), (ends[1], low), (ends[1], high), (ends[0], high))
        shape.add(quads(*(corner(*end, above, step) for end, above in order)), material)
    return shape
