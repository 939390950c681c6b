"""Rays against a world, by embree: one tree for what stands, a fresh small one for what moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from s3pt_mm.toydrive.world import World

FAR = 400.0  # metres; beyond lies the sky


@dataclass(frozen=True, eq=False)
class Hits:
    """First hits of R rays.

    Args:
        distance: (R,) metres along the unit direction, ``inf`` where nothing was hit.
        material: (R,) material number, -1 where nothing was hit.
        actor: (R,) instance number, 0 for scenery and sky.
        normal: (R, 3) unit normal towards the ray's origin (zero where nothing was hit).
    """

    distance: np.ndarray
    material: np.ndarray
    actor: np.ndarray
    normal: np.ndarray


def _normals(triangles: np.ndarray) -> np.ndarray:
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return (normal / np.maximum(length, 1e-12)).astype(np.float32)


class _Tree:
    """One set of triangles."""

    def __init__(self, triangles: np.ndarray, material: np.ndarray, actor: np.ndarray) -> None:
        self.material, self.actor = material.astype(np.int32), actor.astype(np.int32)
        self.normal = _normals(triangles)
        self.scene = None
        if len(triangles):
            self.scene = EmbreeScene()
            # The scene refers to the mesh's memory, so both must live equally long.
            self._mesh = TriangleMesh(self.scene, np.ascontiguousarray(triangles, dtype=np.float32))

    def first(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance (inf) and triangle (-1) of each ray's first hit."""
        if self.scene is None:
            return np.full(len(origins), np.inf, np.float32), np.full(len(origins), -1, np.int32)
        found = self.scene.run(origins, directions, query='INTERSECT', output=1)
        index = found['primID']
        distance = np.where(index >= 0, found['tfar'], np.inf).astype(np.float32)
        return distance, index

    def blocked(self, origins: np.ndarray, directions: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """(R,) bool: something lies within ``reach`` metres along the ray."""
        if self.scene is None or len(origins) == 0:
            return np.zeros(len(origins), dtype=bool)
        found = self.scene.run(origins, directions, dists=reach, query='OCCLUDED')
        return np.asarray(found) >= 0


class Instant:
    """A world frozen at one time, ready for rays.

    Args:
        world: The world.
        time: Seconds from the recording's start.
        with_ego: Whether the recording car's own body can be hit (cameras see it; LiDAR points on
            it would be removed anyway).
        camera_rotation: (3, 3) axes in the ego frame of the only camera that will look, which
            saves the time for moving things elsewhere; None for all directions.
    """

    def __init__(
        self,
        world: World,
        time: float,
        *,
        with_ego: bool,
        camera_rotation: np.ndarray | None = None,
    ) -> None:
        if 'tree' not in world.cache:
            world.cache['tree'] = _Tree(
                world.triangles, world.triangle_material, world.triangle_actor
            )
        self.world, self.time = world, time
        view = None
        if camera_rotation is not None:
            view = (world.ego_pose(time)[1] @ camera_rotation)[:2, 2]
            view = view / np.linalg.norm(view)
        moving = world.moving_triangles(time, with_ego=with_ego, view=view)
        self._trees = (world.cache['tree'], _Tree(*moving))

    def trace(self, origin: np.ndarray, directions: np.ndarray) -> Hits:
        """First hits of rays from one ``origin`` (3,) along unit ``directions`` (R, 3)."""
        directions = np.ascontiguousarray(directions, dtype=np.float32)
        origins = np.ascontiguousarray(
            np.broadcast_to(np.asarray(origin, dtype=np.float32), directions.shape)
        )
        distance, index = self._trees[0].first(origins, directions)
        moving, moving_index = self._trees[1].first(origins, directions)
        nearer = moving < distance
        material = np.full(len(directions), -1, dtype=np.int32)
        actor = np.zeros(len(directions), dtype=np.int32)
        normal = np.zeros((len(directions), 3), dtype=np.float32)
        for tree, found, mask in (
            (self._trees[0], index, (index >= 0) & ~nearer),
            (self._trees[1], moving_index, nearer),
        ):
            chosen = found[mask]
            material[mask], actor[mask] = tree.material[chosen], tree.actor[chosen]
            normal[mask] = tree.normal[chosen]
        distance = np.where(nearer, moving, distance)
        lost = distance > FAR
        distance[lost], material[lost], actor[lost] = np.inf, -1, 0
        away = (normal * directions).sum(1) > 0  # open shells are seen from both sides
        normal[away] *= -1
        return Hits(distance, material, actor, normal)

    def blocked(self, origins: np.ndarray, direction: np.ndarray, reach: float = FAR) -> np.ndarray:
        """(R,) bool: the way from ``origins`` (R, 3) along one ``direction`` (3,) is not free."""
        origins = np.ascontiguousarray(origins, dtype=np.float32)
        directions = np.ascontiguousarray(
            np.broadcast_to(np.asarray(direction, dtype=np.float32), origins.shape)
        )
        limit = np.full(len(origins), reach, dtype=np.float32)
        blocked = self._trees[0].blocked(origins, directions, limit)
        free = np.flatnonzero(~blocked)
        blocked[free] = self._trees[1].blocked(origins[free], directions[free], limit[free])
        return blocked
