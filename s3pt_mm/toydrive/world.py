"""A world: street, scenery, objects and light, as triangles with materials, at any instant."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive import vehicles
from s3pt_mm.toydrive.actors import build
from s3pt_mm.toydrive.config import SCENE_NAMES, ToyDriveConfig
from s3pt_mm.toydrive.materials import Materials
from s3pt_mm.toydrive.scenery import furnish
from s3pt_mm.toydrive.shapes import rotation_z
from s3pt_mm.toydrive.street import KERB, Street, ground_shape
from s3pt_mm.toydrive.traffic import RARE, Placement, Planner

SIGHT = 110.0  # metres beyond which moving things are left out, for speed
NEAR = 22.0  # metres within which they are never left out
VAL_SCENES = ('scene-0103', 'scene-0916')


@dataclass(frozen=True, kw_only=True)
class Light:
    """Weather and exposure of a world.

    Args:
        kind: ``day``, ``night`` or ``fog``.
        sun: (3,) unit vector to the sun (moon at night).
        sun_rgb: (3,) its light on a surface facing it.
        sky_rgb: (3,) light of the open sky from above.
        exposure: Factor before the tone curve.
        fog: Extinction in 1/m.
        clouds: Cloud cover, 0 to 1.
    """

    kind: str
    sun: np.ndarray
    sun_rgb: np.ndarray
    sky_rgb: np.ndarray
    exposure: float
    fog: float
    clouds: float


@dataclass(eq=False)
class Actor:
    """One object of the world. ``number`` is its instance number, from 1; 0 is scenery."""

    number: int
    plan: Placement
    triangles: np.ndarray  # (F, 3, 3) around the box's bottom centre, metres
    materials: np.ndarray  # (F,)

    @property
    def category(self) -> str:
        """NuScenes category."""
        return self.plan.category

    @property
    def moving(self) -> bool:
        """Whether it ever moves."""
        return self.plan.speed != 0.0


@dataclass(eq=False)
class World:
    """Everything that a sensor can see; times are seconds from the recording's start."""

    index: int
    street: Street
    light: Light
    actors: list[Actor]
    materials: np.ndarray  # (M, 14), see materials.py
    triangles: np.ndarray  # (F, 3, 3) of all that stands still, standing objects included
    triangle_material: np.ndarray  # (F,)
    triangle_actor: np.ndarray  # (F,) instance numbers
    lamps: np.ndarray  # (L, 3)
    ego_triangles: np.ndarray
    ego_materials: np.ndarray
    ego_speed: float
    ego_lane: int
    duration: float
    cache: dict = field(default_factory=dict)  # tracers and the like, built on first use

    def pose_of(self, actor: Actor, time: float) -> tuple[np.ndarray, float]:
        """Bottom centre (3,) on the ground and yaw of an object."""
        plan, street = actor.plan, self.street
        s = plan.s + plan.speed * time
        xy = street.to_world(s, plan.d)
        z = float(street.height(s, plan.d))
        if actor.moving and abs(plan.d) > street.half:
            # Walkers keep the pavement's height across side streets: stepping down would be a jump.
            z = float(street.elevation(s)) + KERB
        return np.array([xy[0], xy[1], z]), float(street.heading(s)) + plan.turn

    def rotation_of(self, actor: Actor, time: float) -> np.ndarray:
        """(3, 3) axes of an object: what stands on wheels or a foot follows the land's slope,
        people stand upright."""
        _, yaw = self.pose_of(actor, time)
        if actor.category.startswith('human'):
            return rotation_z(yaw)
        plan = actor.plan
        return self.street.tilt(plan.s + plan.speed * time, plan.d) @ rotation_z(yaw)

    def ego_pose(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and rotation (3, 3) of the recording car's rear axle on the ground."""
        s = self.ego_speed * time
        sway = 0.08 * np.sin(0.7 * time + self.index)
        d = self.street.lane(self.ego_lane, -1) + sway
        xy = self.street.to_world(s, d)
        yaw = float(self.street.heading(s)) + 0.08 * 0.7 * np.cos(0.7 * time + self.index) / max(
            self.ego_speed, 1.0
        )
        pitch = 0.006 * np.sin(2.1 * time + 2 * self.index)
        roll = 0.005 * np.sin(1.3 * time + 3 * self.index)
        cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
        tilt = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ np.array(
            [[1, 0, 0], [0, cr, -sr], [0, sr, cr]]
        )
        place = np.array([xy[0], xy[1], float(self.street.elevation(s))])
        return place, self.street.tilt(s, d) @ rotation_z(yaw) @ tilt

    def moving_triangles(
        self, time: float, *, with_ego: bool, view: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        """Triangles (F, 3, 3), materials (F,) and instance numbers (F,) of all that moves.

        The recording car has the number after the last object's. ``view``, a horizontal unit
        direction (2,), leaves out what is neither near nor within 60 degrees of it: no camera
        that looks there sees it or the end of its shadow.
        """
        triangles, materials, numbers = [np.zeros((0, 3, 3))], [np.zeros(0, np.int32)], []
        position, _ = self.ego_pose(time)
        for actor in self.actors:
            if actor.moving:
                offset, _ = self.pose_of(actor, time)
                way = (offset - position)[:2]
                distance = np.linalg.norm(way)
                if distance > SIGHT:
                    continue
                if view is not None and distance > NEAR and way @ view < 0.5 * distance:
                    continue
                triangles.append(actor.triangles @ self.rotation_of(actor, time).T + offset)
                materials.append(actor.materials)
                numbers.append(np.full(len(actor.triangles), actor.number))
        if with_ego:
            offset, rotation = self.ego_pose(time)
            triangles.append(self.ego_triangles @ rotation.T + offset)
            materials.append(self.ego_materials)
            numbers.append(np.full(len(self.ego_triangles), self.ego_number))
        return (
            np.concatenate(triangles),
            np.concatenate(materials),
            np.concatenate([np.zeros(0, np.int32), *numbers]).astype(np.int32),
        )

    @property
    def ego_number(self) -> int:
        """Instance number of the recording car's own body."""
        return len(self.actors) + 1


def draw_light(rng: np.random.Generator, weather: str) -> Light:
    """Sun, sky, exposure and haze of one world; ``mix`` draws the weather too."""
    if weather == 'mix':
        weather = str(rng.choice(['day', 'day', 'night', 'fog']))
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(np.radians(18), np.radians(65))
    sun = np.array(
        [np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)]
    )
    warm = np.clip(1.2 - height, 0, 0.6)
    clouds = rng.uniform(0, 1)
    strength = 1.0 - 0.75 * max(0.0, clouds - 0.6) / 0.4
    exposure = float(np.exp(rng.normal(0, 0.16)))
    if weather == 'day':
        return Light(kind='day', sun=sun, exposure=1.5 * exposure, fog=rng.uniform(0.0008, 0.003),
                     sun_rgb=np.array([1.5, 1.4 - 0.25 * warm, 1.3 - 0.7 * warm]) * strength,
                     sky_rgb=np.array([0.5, 0.58, 0.72]) * (1 + 0.4 * (1 - strength)),
                     clouds=clouds)  # fmt: skip
    if weather == 'fog':
        grey = rng.uniform(0.75, 1.0)
        return Light(kind='fog', sun=sun, exposure=1.35 * exposure, fog=rng.uniform(0.02, 0.045),
                     sun_rgb=np.full(3, 0.12), sky_rgb=np.array([0.8, 0.82, 0.85]) * grey,
                     clouds=1.0)  # fmt: skip
    return Light(kind='night', sun=sun, exposure=2.2 * exposure, fog=0.002,
                 sun_rgb=np.array([0.012, 0.014, 0.02]), sky_rgb=np.array([0.016, 0.02, 0.034]),
                 clouds=clouds)  # fmt: skip


def draw_hills(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """A long and a short wave of the land: together at most four in a hundred, which leaves a
    yaw-only box within 0.1 m of a car's ends."""
    return tuple(
        (float(rng.uniform(0, steepest) * length / (2 * np.pi)), length, rng.uniform(0, 2 * np.pi))
        for steepest, length in (
            (0.025, float(rng.uniform(150, 300))),
            (0.015, float(rng.uniform(70, 120))),
        )
    )


def required_kinds(index: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Rare kinds that world ``index`` must have beside the path.

    Both val scenes and the first train scene have all of them, so that every detection class is
    in every split whatever the number of scenes; elsewhere they stay rare.
    """
    if index == 0 or (index < len(SCENE_NAMES) and SCENE_NAMES[index] in VAL_SCENES):
        return RARE
    chance = dict.fromkeys(RARE, 0.35)
    chance['movable_object.barrier'], chance['movable_object.trafficcone'] = 0.8, 0.75
    chance.update({'vehicle.truck': 0.7, 'vehicle.motorcycle': 0.6, 'vehicle.bicycle': 0.6})
    return tuple(kind for kind in RARE if rng.uniform() < chance[kind])


def build_world(config: ToyDriveConfig, index: int) -> World:
    """World number ``index`` of a data set; the same for equal config, whoever asks.

    Worlds 0 to 9 are those of the nuScenes scenes in the order of ``SCENE_NAMES``.
    """
    rng = np.random.default_rng([config.seed, 0x70D, index])
    materials = Materials(rng)
    ego_speed = float(rng.uniform(3.5, 8.5))
    duration = max(8.0, 0.5 * config.samples_per_scene)
    lanes = int(rng.choice([1, 2]))
    ahead = ego_speed * duration
    first = rng.uniform(28, 60)
    street = Street(
        curvature=float(rng.choice([-1, 1]) * rng.uniform(3e-4, 3.6e-3)),
        start=-120.0,
        end=ahead + 130.0,
        lanes=lanes,
        pavement=float(rng.uniform(3.6, 5.0)),
        crossings=(float(first - rng.uniform(85, 110)), float(first), float(first + ahead + 60)),
        crossing_half=float(rng.uniform(4.5, 6.5)),
        hills=draw_hills(rng),
    )
    light = draw_light(rng, config.weather)
    ego_lane = lanes - 1
    planner = Planner(rng, street, ego_speed=ego_speed, ego_lane=ego_lane, duration=duration,
                      density=config.density)  # fmt: skip
    plans = planner.plan(required_kinds(index, rng))
    scenery, lamps = furnish(rng, materials, street, config.density, planner.left_free)
    scenery.extend(ground_shape(street, materials), np.eye(3), [0, 0, 0])
    triangles, triangle_material = scenery.arrays()
    parts = [(triangles, triangle_material, np.zeros(len(triangles), np.int32))]
    actors = []
    for number, plan in enumerate(plans, start=1):
        shape = build(rng, materials, plan.category, plan.size, moving=plan.speed != 0.0)
        actors.append(Actor(number, plan, *shape.arrays()))
    ego_shape = vehicles.ego(materials, tx.EGO)
    world = World(
        index=index, street=street, light=light, actors=actors, materials=materials.table(),
        triangles=triangles, triangle_material=triangle_material, triangle_actor=parts[0][2],
        lamps=lamps, ego_triangles=ego_shape.arrays()[0], ego_materials=ego_shape.arrays()[1],
        ego_speed=ego_speed, ego_lane=ego_lane, duration=duration,
    )  # fmt: skip
    for actor in actors:
        if not actor.moving:
            offset, _ = world.pose_of(actor, 0.0)
            placed = actor.triangles @ world.rotation_of(actor, 0.0).T + offset
            parts.append((placed, actor.materials,
                          np.full(len(actor.triangles), actor.number, np.int32)))  # fmt: skip
    world.triangles, world.triangle_material, world.triangle_actor = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return world
