"""Solids out of few triangles, each triangle with a material: what every model is built from."""

from __future__ import annotations

from functools import cache

import numpy as np
import trimesh


@cache
def _unit_box() -> np.ndarray:
    return np.asarray(trimesh.creation.box().triangles, dtype=np.float64)


@cache
def _unit_cylinder(sections: int) -> np.ndarray:
    # Radius 1, z from 0 to 1.
    mesh = trimesh.creation.cylinder(radius=1.0, height=1.0, sections=sections)
    return np.asarray(mesh.triangles, dtype=np.float64) + [0, 0, 0.5]


@cache
def _unit_sphere(subdivisions: int) -> np.ndarray:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.asarray(mesh.triangles, dtype=np.float64)


@cache
def _unit_ring(sections: int, inner: float) -> np.ndarray:
    # An annulus in the xy plane, z from -0.5 to 0.5, outer radius 1.
    mesh = trimesh.creation.annulus(r_min=inner, r_max=1.0, height=1.0, sections=sections)
    return np.asarray(mesh.triangles, dtype=np.float64)


def rotation_z(angle: float) -> np.ndarray:
    """(3, 3) rotation by ``angle`` radians around z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # np.cross spends thirty times longer on a single pair of vectors.
    return np.array(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


def _frame_along(axis: np.ndarray) -> np.ndarray:
    """(3, 3) rotation whose third column is ``axis`` (unit)."""
    helper = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 1.0, 0])
    side = _cross(helper, axis)
    side /= np.linalg.norm(side)
    return np.stack([side, _cross(axis, side), axis], axis=1)


class Shape:
    """A growing list of triangles with one material number each.

    Models of objects are built in *box units*: x (forward) and y (left) in [-0.5, 0.5] and z in
    [0, 1], so that scaling by (length, width, height) fills the annotated box exactly.
    """

    def __init__(self) -> None:
        self._triangles: list[np.ndarray] = []
        self._materials: list[np.ndarray] = []

    def add(self, triangles: np.ndarray, material: int) -> None:
        """Append triangles (F, 3, 3), all of one material."""
        self._triangles.append(np.asarray(triangles, dtype=np.float64))
        self._materials.append(np.full(len(triangles), material, dtype=np.int32))

    def extend(self, other: Shape, matrix: np.ndarray, offset: np.ndarray | list[float]) -> None:
        """Append another shape, each vertex v moved to ``matrix @ v + offset``."""
        triangles, materials = other.arrays()
        self._triangles.append(triangles @ np.asarray(matrix).T + np.asarray(offset))
        self._materials.append(materials)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Triangles (F, 3, 3) float64 and their materials (F,) int32."""
        if not self._triangles:
            return np.zeros((0, 3, 3)), np.zeros(0, dtype=np.int32)
        return np.concatenate(self._triangles), np.concatenate(self._materials)

    def fill_box(self, size: tuple[float, float, float]) -> Shape:
        """The shape stretched so that its bounds are the box of ``size`` (width, length, height).

        The result is centred in x and y and stands on z = 0.
        """
        triangles, materials = self.arrays()
        low, high = triangles.min((0, 1)), triangles.max((0, 1))
        width, length, height = size
        unit = (triangles - low) / np.maximum(high - low, 1e-9) - [0.5, 0.5, 0.0]
        result = Shape()
        result._triangles = [unit * [length, width, height]]
        result._materials = [materials]
        return result

    def box(
        self,
        low: tuple[float, float, float],
        high: tuple[float, float, float],
        material: int,
        *,
        taper: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """An axis-aligned box; ``taper`` scales its top face in x and y around the centre."""
        triangles = _unit_box().copy()
        top = triangles[..., 2] > 0
        triangles[..., 0] *= np.where(top, taper[0], 1.0)
        triangles[..., 1] *= np.where(top, taper[1], 1.0)
        a, b = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        self.add(triangles * (b - a) + (a + b) / 2, material)

    def prism(
        self,
        profile: list[tuple[float, float]],
        half_width: float | list[float],
        material: int,
        *,
        cap_material: int | None = None,
        centre: float = 0.0,
    ) -> None:
        """A side profile in (x, z), star-shaped around its mean, extruded along y.

        Args:
            profile: Corners in order.
            half_width: Half extent along y, one for all corners or one per corner, which makes
                flanks lean.
            material: Of the rim.
            cap_material: Of the two flat sides; the rim's where None.
            centre: Middle of the solid on y.
        """
        points = np.asarray(profile, dtype=np.float64)
        widths = np.broadcast_to(np.asarray(half_width, dtype=np.float64), (len(points),))
        left = np.stack([points[:, 0], widths, points[:, 1]], axis=1)
        right = left * [1, -1, 1]
        following = np.roll(np.arange(len(points)), -1)
        rim = np.concatenate(
            [
                np.stack([left, right, right[following]], axis=1),
                np.stack([left, right[following], left[following]], axis=1),
            ]
        )
        caps = []
        for side in (left, right):
            middle = np.broadcast_to(side.mean(0), side.shape)
            caps.append(np.stack([middle, side, side[following]], axis=1))
        self.add(rim + [0, centre, 0], material)
        self.add(
            np.concatenate(caps) + [0, centre, 0],
            material if cap_material is None else cap_material,
        )

    def tube(
        self,
        start: tuple[float, float, float],
        end: tuple[float, float, float],
        radius: float,
        material: int,
        *,
        end_radius: float | None = None,
        sections: int = 8,
        squash: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        """A cylinder or cone frustum from ``start`` to ``end``.

        ``squash`` scales the radial offsets per axis: box units are not round, so a wheel drawn
        in them has to be given the box's proportions.
        """
        a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        triangles = _unit_cylinder(sections).copy()
        far = radius if end_radius is None else end_radius
        scale = radius + (far - radius) * triangles[..., 2:3]
        length = np.linalg.norm(b - a)
        frame = _frame_along((b - a) / max(length, 1e-9))
        radial = (triangles[..., :2] * scale) @ frame[:, :2].T * np.asarray(squash)
        self.add(radial + a + triangles[..., 2:3] * (b - a), material)

    def ellipsoid(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        material: int,
        *,
        subdivisions: int = 1,
        lumps: np.random.Generator | None = None,
    ) -> None:
        """A faceted ellipsoid; ``lumps`` pushes its vertices in and out (tree crowns)."""
        triangles = _unit_sphere(subdivisions)
        if lumps is not None:
            waves = lumps.normal(size=(4, 3)) * 3.0
            phases = lumps.uniform(0, 2 * np.pi, 4)
            triangles = triangles * (
                1 + 0.09 * np.sin(triangles @ waves.T + phases).sum(-1, keepdims=True)
            )
        self.add(triangles * np.asarray(radii) + np.asarray(centre), material)

    def wheel(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float],
        half_width: float,
        tyre: int,
        hub: int | None = None,
    ) -> None:
        """A wheel with its axle along y; ``radii`` are along x and z. Without hub it is a ring."""
        x, y, z = centre
        if hub is None:
            ring = _unit_ring(14, 0.86)[..., [0, 2, 1]]
            self.add(ring * [radii[0], 2 * half_width, radii[1]] + [x, y, z], tyre)
            return
        for scale, extra, material in ((1.0, 0.0, tyre), (0.55, 0.25 * half_width, hub)):
            self.tube(
                (x, y - half_width - extra, z),
                (x, y + half_width + extra, z),
                1.0,
                material,
                sections=12,
                squash=(radii[0] * scale, 1.0, radii[1] * scale),
            )
