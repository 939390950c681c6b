"""Worlds: geometry in closed form, sizes, long tail, parts, colours, distances."""

from collections import Counter

import numpy as np
import pytest

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.materials import RGB1, Materials
from s3pt_mm.toydrive.sensors import camera_rig, cityscapes_camera
from s3pt_mm.toydrive.shapes import rotation_z
from s3pt_mm.toydrive.street import Street, ground_materials
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
    assert count['car'] > 100 and 1 <= count['motorcycle'] < count['car'] / 10
    assert count['bicycle'] < count['pedestrian'] / 4


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
                place, yaw = world.pose_of(actor, time)
                if np.abs(place - position).max() > 30:
                    continue
                width, length, height = actor.plan.size
                own = (eyes - place - [0, 0, height / 2]) @ rotation_z(yaw)
                away = np.maximum(np.abs(own) - np.array([length, width, height]) / 2, 0)
                assert np.linalg.norm(away, axis=1).min() > 0.6, (world.index, time, actor.plan)
