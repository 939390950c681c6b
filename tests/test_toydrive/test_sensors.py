"""What the sensors see of worlds of the default size: classes by LiDAR, weather by camera."""

from dataclasses import replace

import numpy as np
import pytest
from nuscenes.eval.common.config import config_factory
from threadpoolctl import threadpool_limits

from s3pt_mm.toydrive import ToyDriveConfig
from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.capture_nuscenes import _boxes, key_time, sensors_of
from s3pt_mm.toydrive.config import SCENE_NAMES
from s3pt_mm.toydrive.frames import generator
from s3pt_mm.toydrive.rendering import Photo, _shade, render
from s3pt_mm.toydrive.sensors import camera_rig
from s3pt_mm.toydrive.tracing import Instant
from s3pt_mm.toydrive.world import VAL_SCENES, World, draw_light

CONFIG = ToyDriveConfig()


@pytest.mark.parametrize('scene', [0, 1], ids=['mini_train', 'mini_val'])
def test_every_class_has_lidar_points_within_its_range(worlds: list[World], scene: int) -> None:
    assert (SCENE_NAMES[scene] in VAL_SCENES) == (scene == 1)
    limits = config_factory('detection_cvpr_2019').class_range
    world, found = worlds[scene], {}
    _, lidar = sensors_of(CONFIG, scene)
    for sample in range(CONFIG.samples_per_scene):
        seconds = key_time(sample)
        position, rotation = world.ego_pose(seconds)
        instant = Instant(world, seconds, with_ego=False)
        points = lidar.sweep(instant, position, rotation, generator(CONFIG, 'test', sample))
        ego = points[:, :3].astype(np.float64) @ lidar.rotation.T + lidar.translation
        nothing_seen = np.zeros((2, world.ego_number), dtype=np.int64)
        for box in _boxes(world, seconds, ego @ rotation.T + position, nothing_seen):
            actor = world.actors[box['number'] - 1]
            name = tx.DETECTION_CLASS.get(actor.category)
            away = np.linalg.norm((world.pose_of(actor, seconds)[0] - position)[:2])
            if name and box['points'] > 0 and away < limits[name]:
                found.setdefault(name, set()).add((actor.number, sample))
        if all(len(found.get(name, ())) > 1 for name in limits):
            break  # no need to look at every sweep
    # Two boxes or more: an object met in one key frame alone would not be annotated.
    assert {name for name, boxes in found.items() if len(boxes) > 1} == set(limits)


def in_weather(world: World, weather: str) -> Instant:
    light = draw_light(np.random.default_rng(3), weather)
    assert light.kind == weather
    return Instant(replace(world, light=light, cache={}), 1.0, with_ego=True)


@pytest.fixture(scope='module')
def photos(worlds: list[World]) -> dict[str, Photo]:
    """One view of one world by day, at night and in fog."""
    camera = camera_rig(np.random.default_rng(0))['CAM_FRONT']
    result = {}
    for weather in ('day', 'night', 'fog'):
        instant = in_weather(worlds[0], weather)
        result[weather] = render(instant, camera, scale=0.1, rng=np.random.default_rng(0))
    return result


@pytest.mark.parametrize('weather', ['day', 'night'])
def test_light_is_the_same_for_any_number_of_threads(worlds: list[World], weather: str) -> None:
    """Before rounding to bytes, where a difference would show in one photo of sixty."""
    instant = in_weather(worlds[0], weather)
    camera = camera_rig(np.random.default_rng(0))['CAM_FRONT']
    position, rotation = instant.world.ego_pose(instant.time)
    rays = camera.rays(240, 100) @ (rotation @ camera.rotation).T.astype(np.float32)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api='blas'):
            found.append(_shade(instant, position + rotation @ camera.translation, rays, 0.003)[0])
    assert np.array_equal(*found)


def test_weather_changes_light_but_nothing_else(photos: dict[str, Photo]) -> None:
    for photo in photos.values():
        np.testing.assert_array_equal(photo.labels, photos['day'].labels)
        np.testing.assert_array_equal(photo.depth, photos['day'].depth)
        assert photo.image.shape == (900, 1600, 3)


def test_night_is_dark_with_lights_in_it(photos: dict[str, Photo]) -> None:
    day, night = photos['day'].image, photos['night'].image
    assert night.mean() < 0.5 * day.mean()
    sky = photos['day'].enlarged(photos['day'].labels) == tx.SKY
    assert night[sky].mean() < 0.4 * day[sky].mean()
    assert np.percentile(night, 99.5) > 3 * np.median(night)  # lamps, windows, headlights


def test_fog_takes_contrast_with_distance(photos: dict[str, Photo]) -> None:
    depth = photos['day'].enlarged(photos['day'].depth)
    spread = {}
    for weather in ('day', 'fog'):
        grey = photos[weather].image.mean(2)
        spread[weather] = [
            grey[mask].std() for mask in (depth < 20, (depth > 70) & np.isfinite(depth))
        ]
    near, far = (fog / day for fog, day in zip(spread['fog'], spread['day'], strict=True))
    assert far < 0.5 * near  # what is left of the contrast by day
