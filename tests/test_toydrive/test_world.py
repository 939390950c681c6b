"""Worlds: geometry in closed form, sizes, long tail, parts, weather."""

from collections import Counter

import numpy as np
import pytest

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.config import ToyDriveConfig
from s3pt_mm.toydrive.street import Street
from s3pt_mm.toydrive.world import World, build_world


@pytest.fixture(scope='module')
def worlds() -> list[World]:
    return [build_world(ToyDriveConfig(), i) for i in range(3)]


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


@pytest.mark.parametrize('weather', ['day', 'night', 'fog'])
def test_weather(weather: str) -> None:
    light = build_world(ToyDriveConfig(weather=weather, density=0.2), 0).light
    assert light.kind == weather
    assert (light.sky_rgb.mean() < 0.1) == (weather == 'night')
    assert (light.fog > 0.01) == (weather == 'fog')
