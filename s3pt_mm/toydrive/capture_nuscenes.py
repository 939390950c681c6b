"""nuScenes sensor files: photos and sweeps of one key frame, and what they show of each object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from s3pt_mm.toydrive.config import SCENE_NAMES, ToyDriveConfig
from s3pt_mm.toydrive.frames import generator, get_world
from s3pt_mm.toydrive.rendering import render
from s3pt_mm.toydrive.sensors import (  # fmt: skip
    CAMERA_DELAY,
    CAMERAS,
    KEY_INTERVAL,
    LIDAR,
    Camera,
    Lidar,
    camera_rig,
    lidar_top,
)
from s3pt_mm.toydrive.tables import Record, write_image
from s3pt_mm.toydrive.tracing import Instant
from s3pt_mm.toydrive.world import Actor, World

ANNOTATION_RANGE = 80.0  # metres from the recording car
_START = 0.3  # seconds of the first key frame
_EPOCH = 1_532_402_927_000_000  # microseconds of scene 0's time 0
_SCENE_STEP = 3_600_000_000  # microseconds between scenes
_BODY_POINTS = 24  # points an object for its visibility


def stamp(scene: int, seconds: float) -> int:
    """Microseconds of a time in a scene."""
    return _EPOCH + scene * _SCENE_STEP + round(seconds * 1e6)


def key_time(sample: int) -> float:
    """Seconds of a key frame's LiDAR instant."""
    return _START + KEY_INTERVAL * sample


def sensors_of(config: ToyDriveConfig, scene: int) -> tuple[dict[str, Camera], Lidar]:
    """The recording car's sensors; every scene has a car of its own, mounted anew."""
    rng = generator(config, 'vehicle', scene)
    return camera_rig(rng), lidar_top(rng)


def capture(config: ToyDriveConfig, root: Path, scene: int, sample: int) -> dict[str, Any]:
    """Write all files of one key frame and of the sweeps before the next one.

    Returns:
        ``files``: sample_data drafts (channel, seconds, filename, key); ``boxes``: for each object
        in range its number, point count and visibility level.
    """
    world = get_world(config, scene)
    rig, lidar = sensors_of(config, scene)
    files: list[Record] = []
    last = sample == config.samples_per_scene - 1
    moments = [(key_time(sample), True, True)]
    if not last:
        count = config.sweeps
        sweep_cameras = scene < config.camera_sweep_scenes
        moments += [
            (key_time(sample) + KEY_INTERVAL * (i + 1) / (count + 1), False,
             sweep_cameras and i == count // 2)
            for i in range(count)
        ]  # fmt: skip
    boxes: list[Record] = []
    for seconds, key, with_cameras in moments:
        folder = 'samples' if key else 'sweeps'
        cloud = _write_lidar(config, root, world, lidar, scene, seconds, folder, files, key)
        seen = np.zeros((2, world.ego_number), dtype=np.int64)
        for name in CAMERAS if with_cameras else ():
            moment = round(seconds + CAMERA_DELAY[name], 6)
            instant = Instant(world, moment, with_ego=True, camera_rotation=rig[name].rotation)
            rng = generator(config, 'camera', scene, name, stamp(scene, moment))
            photo = render(instant, rig[name], scale=config.image_scale, rng=rng)
            filename = _filename(config, scene, folder, name, moment, 'jpg')
            write_image(root / filename, photo.image, quality=config.jpeg_quality)
            files.append(dict(channel=name, seconds=moment, filename=filename, key=key))
            if key:
                seen += _visible_points(instant, rig[name])
        if key:
            boxes = _boxes(world, seconds, cloud, seen)
    return dict(scene=scene, sample=sample, files=files, boxes=boxes)


def _filename(
    config: ToyDriveConfig, scene: int, folder: str, channel: str, seconds: float, ending: str
) -> str:
    name = f'toydrive-{config.seed:04d}-{SCENE_NAMES[scene]}__{channel}__{stamp(scene, seconds)}'
    return f'{folder}/{channel}/{name}.{ending}'


def _write_lidar(
    config: ToyDriveConfig, root: Path, world: World, lidar: Lidar, scene: int, seconds: float,
    folder: str, files: list[Record], key: bool,
) -> np.ndarray:  # fmt: skip
    """Write one sweep; returns its points (P, 3) in the world."""
    seconds = round(seconds, 6)
    rng = generator(config, 'lidar', scene, stamp(scene, seconds))
    position, rotation = world.ego_pose(seconds)
    points = lidar.sweep(Instant(world, seconds, with_ego=False), position, rotation, rng)
    filename = _filename(config, scene, folder, LIDAR, seconds, 'pcd.bin')
    path = root / filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(points.tobytes())
    files.append(dict(channel=LIDAR, seconds=seconds, filename=filename, key=key))
    ego = points[:, :3].astype(np.float64) @ lidar.rotation.T + lidar.translation
    return ego @ rotation.T + position


def _body_points(world: World, actor: Actor) -> np.ndarray:
    """(24, 3) fixed points on an object's surface, in its own frame."""
    key = ('body', actor.number)
    if key not in world.cache:
        rng = np.random.default_rng(actor.number)
        a, b, c = actor.triangles.transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        chosen = rng.choice(len(area), _BODY_POINTS, p=area / area.sum())
        u, v = rng.uniform(size=(2, _BODY_POINTS, 1))
        u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
        world.cache[key] = a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]
    return world.cache[key]


def _visible_points(instant: Instant, camera: Camera) -> np.ndarray:
    """(2, A + 1) of each object's body points: how many lie in this image, and are not hidden.

    A point behind its own object's front counts as visible: only others occlude.
    """
    world = instant.world
    position, rotation = world.ego_pose(instant.time)
    origin = position + rotation @ camera.translation
    points, numbers = [], []
    for actor in world.actors:
        place, _ = world.pose_of(actor, instant.time)
        if np.linalg.norm(place - position) < ANNOTATION_RANGE:
            axes = world.rotation_of(actor, instant.time)
            points.append(_body_points(world, actor) @ axes.T + place)
            numbers.append(np.full(_BODY_POINTS, actor.number))
    counts = np.zeros((2, world.ego_number), dtype=np.int64)
    if not points:
        return counts
    way, number = np.concatenate(points) - origin, np.concatenate(numbers)
    own = way @ (rotation @ camera.rotation)
    pixel = own @ camera.intrinsic.T
    with np.errstate(divide='ignore', invalid='ignore'):
        x, y = pixel[:, 0] / pixel[:, 2], pixel[:, 1] / pixel[:, 2]
    inside = (own[:, 2] > 0.5) & (x > 0) & (x < camera.width) & (y > 0) & (y < camera.height)
    way, number = way[inside], number[inside]
    hits = instant.trace(origin, way / np.linalg.norm(way, axis=1, keepdims=True))
    np.add.at(counts[0], number, 1)
    np.add.at(counts[1], number[hits.actor == number], 1)
    return counts


def _boxes(world: World, seconds: float, cloud: np.ndarray, seen: np.ndarray) -> list[Record]:
    """Objects in range with their point counts (inside the box) and visibility levels 1 to 4."""
    position, _ = world.ego_pose(seconds)
    boxes = []
    for actor in world.actors:
        place, _ = world.pose_of(actor, seconds)
        if np.linalg.norm(place[:2] - position[:2]) > ANNOTATION_RANGE:
            continue
        width, length, height = actor.plan.size
        own = (cloud - place) @ world.rotation_of(actor, seconds)
        inside = (
            (np.abs(own[:, 0]) <= length / 2)
            & (np.abs(own[:, 1]) <= width / 2)
            & (own[:, 2] >= 0)
            & (own[:, 2] <= height)
        )
        total, visible = seen[:, actor.number]
        share = visible / total if total else 0.0
        level = 1 + int(share >= 0.4) + int(share >= 0.6) + int(share >= 0.8)
        boxes.append(dict(number=actor.number, points=int(inside.sum()), level=level))
    return boxes
