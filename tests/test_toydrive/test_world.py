"""Worlds: geometry in closed form, sizes, long tail, parts, colours, distances."""

from collections import Counter

import numpy as np
import pytest

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.materials import (
    GLASS,
    KIND,
    LABEL,
    LAMP,
    PATCHES,
    PLAIN,
    RGB1,
    STRIPES,
    Materials,
)
from s3pt_mm.toydrive.sensors import camera_rig, cityscapes_camera
from s3pt_mm.toydrive.shapes import rotation_z
from s3pt_mm.toydrive.street import Street, ground_materials, ground_shape
from s3pt_mm.toydrive.world import Actor, World


@pytest.mark.parametrize('curvature', [-3e-3, -1e-4, 1e-4, 3e-3])
def test_street_coordinates_invert(curvature: float) -> None:
    street = Street(curvature=curvature, start=-100, end=200, lanes=2)
    rng = np.random.default_rng(0)
    s, d = rng.uniform(-100, 200, 50), rng.uniform(-90, 90, 50)
    xy = street.to_world(s, d)
    back = street.to_street(xy[:, 0], xy[:, 1])
    np.testing.assert_allclose(back[0], s, atol=1e-6)
    np.testing.assert_allclose(back[1], d, atol=1e-6)


HILLY = Street(
    curvature=2e-3, start=-100, end=200, lanes=2, crossings=(40.0,),
    hills=((0.9, 220.0, 1.0), (0.2, 80.0, 4.0)),
)  # fmt: skip


def test_the_land_tilts_as_its_height_says() -> None:
    def point(s: float, d: float) -> np.ndarray:
        return np.array([*HILLY.to_world(s, d), float(HILLY.elevation(s))])

    for s, d in ((-80.0, -12.0), (13.0, 0.0), (150.0, 14.0)):
        along = point(s + 1e-4, d) - point(s - 1e-4, d)
        across = point(s, d + 1e-4) - point(s, d - 1e-4)
        normal = np.cross(along, across)
        tilt = HILLY.tilt(s, d)
        np.testing.assert_allclose(tilt[:, 2], normal / np.linalg.norm(normal), atol=1e-6)
        np.testing.assert_allclose(tilt @ tilt.T, np.eye(3), atol=1e-12)
        # The smallest such rotation: its axis is level.
        assert tilt[0, 1] == pytest.approx(tilt[1, 0])
    assert HILLY.elevation(0.0) == 0


def test_the_ground_lies_at_its_height() -> None:
    triangles, _ = ground_shape(HILLY, Materials(np.random.default_rng(0))).arrays()
    flat = np.ptp(triangles[..., 2], axis=1) < 0.1
    middle = triangles[flat].mean(1)
    s, d = HILLY.to_street(middle[:, 0], middle[:, 1])
    inside = np.abs(d) < 60
    error = middle[inside, 2] - HILLY.height(s[inside], d[inside])
    kerb = np.abs(np.abs(error) - 0.15) < 0.01  # a cell's middle on the other side of a corner
    assert np.abs(error[~kerb]).max() < 0.004 and kerb.mean() < 0.05


def test_wheels_stand_on_sloping_roads_and_people_upright(worlds: list[World]) -> None:
    steepest = 0.0
    for world in worlds:
        street = world.street
        for actor in world.actors:
            for time in (0.0, 3.0):
                place, yaw = world.pose_of(actor, time)
                axes = world.rotation_of(actor, time)
                if actor.category.startswith('human'):
                    np.testing.assert_array_equal(axes, rotation_z(yaw))
                    continue
                width, length, _ = actor.plan.size
                ends = np.array([[length / 2, 0, 0], [-length / 2, 0, 0], [0, width / 2, 0]])
                ground = ends @ axes.T + place
                s, _ = street.to_street(ground[:, 0], ground[:, 1])
                middle = street.to_street(*place[:2])[0]
                above = ground[:, 2] - place[2]
                land = street.elevation(s) - street.elevation(middle)
                assert np.abs(above - land).max() < 0.03
                # What tools that keep only the yaw of a box lose at its ends, metres a metre.
                steepest = max(steepest, abs(float(street.slope(middle))))
                assert np.arctan2(axes[1, 0], axes[0, 0]) == pytest.approx(
                    np.arctan2(np.sin(yaw), np.cos(yaw)), abs=1e-3
                )
    assert 0.01 < steepest < 0.041


def test_no_two_cars_look_at_the_horizon_alike() -> None:
    cameras = [c for seed in range(40) for c in camera_rig(np.random.default_rng(seed)).values()]
    pitch = np.degrees([np.arcsin(c.rotation[2, 2]) for c in cameras])
    roll = np.degrees([np.arcsin(c.rotation[2, 0]) for c in cameras])
    height = [c.translation[2] for c in cameras]
    assert pitch.std() > 4 and roll.std() > 2 and np.std(height) > 0.3
    assert np.abs(pitch).max() < 11 and min(height) > 1.1


def test_unlabelled_things_wear_what_cars_wear(worlds: list[World]) -> None:
    for world in worlds:
        scenery = np.unique(world.triangle_material[world.triangle_actor == 0])
        rows = world.materials[scenery]
        kinds = {int(kind) for kind in rows[rows[:, LABEL] == tx.STATIC, KIND]}
        cars = [a for a in world.actors if a.category == 'vehicle.car']
        used = np.unique(np.concatenate([a.materials for a in cars]))
        assert {PLAIN, STRIPES, PATCHES, GLASS, LAMP} <= kinds
        assert {int(kind) for kind in world.materials[used, KIND]} <= kinds


def test_models_fill_their_boxes_with_several_parts(worlds: list[World]) -> None:
    for actor in worlds[0].actors:
        low, high = actor.triangles.min((0, 1)), actor.triangles.max((0, 1))
        width, length, height = actor.plan.size
        np.testing.assert_allclose(high - low, [length, width, height], atol=1e-6)
        assert low[2] == pytest.approx(0, abs=1e-9)
        if actor.category in tx.DETECTION_CLASS:
            assert len(np.unique(actor.materials)) >= 2 and len(actor.triangles) >= 40


def test_sizes_are_near_the_class_means(worlds: list[World]) -> None:
    for world in worlds:
        for actor in world.actors:
            ratio = np.array(actor.plan.size) / tx.SIZES[actor.category]
            # Cycles with a rider are a third taller.
            assert (ratio > 0.7).all() and (ratio < 1.65).all(), actor.plan


def test_long_tail(worlds: list[World]) -> None:
    count = Counter(tx.DETECTION_CLASS.get(a.category) for w in worlds for a in w.actors)
    # Rare, but no rarer than a small network can learn from a hundred photos.
    assert count['car'] > 100
    for kind in ('motorcycle', 'bicycle'):
        assert count['car'] / 10 < count[kind] < count['car'] / 2
    assert count['car'] < count['pedestrian'] < 4 * count['car']
    for kind in ('bus', 'trailer', 'construction_vehicle'):
        assert 1 <= count[kind] < count['car'] / 10


def _mean_colour(world: World, actor: Actor) -> np.ndarray:
    """Colour (3,) of a model's surface, tone-mapped, as a distant camera would average it."""
    a, b, c = actor.triangles.transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return np.sqrt(np.average(world.materials[actor.materials, RGB1], axis=0, weights=area))


def _balanced_accuracy(features: np.ndarray, names: np.ndarray, owner: np.ndarray) -> float:
    """Mean recall of a nearest neighbour among the objects of *other* worlds, rare ones included.

    Every class has the same number of candidates, so that chance is one over the classes.
    """
    rng = np.random.default_rng(0)
    recalls: dict[str, list[float]] = {name: [] for name in np.unique(names)}
    for world in np.unique(owner):
        rest = np.flatnonzero(owner != world)
        groups = [rest[names[rest] == name] for name in recalls]
        least = min(map(len, groups))
        memory = np.concatenate([rng.permutation(group)[:least] for group in groups])
        for index in np.flatnonzero(owner == world):
            nearest = memory[np.linalg.norm(features[memory] - features[index], axis=1).argmin()]
            recalls[names[index]].append(names[nearest] == names[index])
    return float(np.mean([np.mean(values) for values in recalls.values()]))


def test_colour_does_not_give_the_class_away(worlds: list[World]) -> None:
    classes = ('car', 'truck', 'pedestrian', 'bicycle', 'traffic_cone', 'barrier')
    found = [
        (_mean_colour(world, actor), actor.plan.size, tx.DETECTION_CLASS[actor.category], number)
        for number, world in enumerate(worlds)
        for actor in world.actors
        if tx.DETECTION_CLASS.get(actor.category) in classes
    ]
    colour, size, names, owner = (np.array(column) for column in zip(*found, strict=True))
    assert len(np.unique(names)) == len(classes)
    # One in six by chance. Size is the control: what does give the class away is found.
    assert _balanced_accuracy(colour, names, owner) < 0.34
    assert _balanced_accuracy(size, names, owner) > 0.8


def test_grounds_vary_from_world_to_world() -> None:
    grounds = []
    for seed in range(30):
        materials = Materials(np.random.default_rng(seed))
        first = ground_materials(materials)
        grounds.append(np.sqrt(materials.table()[first : first + 3, RGB1]))
    road, walk, terrain = np.array(grounds).mean(2).T  # brightness
    assert min(road.std(), walk.std(), terrain.std()) > 0.05
    assert road.max() > walk.min() and terrain.max() > walk.min() and walk.max() > road.min()


def test_no_camera_is_inside_or_against_an_object_at_any_time(worlds: list[World]) -> None:
    rng = np.random.default_rng(0)
    cameras = np.array([c.translation for c in [*camera_rig(rng).values(), cityscapes_camera(rng)]])
    for world in worlds:
        for time in np.arange(0, world.duration + 0.1, 0.25):
            position, rotation = world.ego_pose(time)
            eyes = cameras @ rotation.T + position
            for actor in world.actors:
                place, _ = world.pose_of(actor, time)
                if np.abs(place - position).max() > 30:
                    continue
                width, length, height = actor.plan.size
                own = (eyes - place) @ world.rotation_of(actor, time) - [0, 0, height / 2]
                away = np.maximum(np.abs(own) - np.array([length, width, height]) / 2, 0)
                assert np.linalg.norm(away, axis=1).min() > 0.6, (world.index, time, actor.plan)
