"""nuImages ``v1.0-train`` and ``v1.0-val``: one annotated camera image a sample."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from s3pt_mm.data.class_sets import NUIMAGES_CATEGORIES
from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.config import ToyDriveConfig
from s3pt_mm.toydrive.frames import generator, get_world, time_of_frame, token, world_of_frame
from s3pt_mm.toydrive.rendering import Photo, render
from s3pt_mm.toydrive.sensors import CAMERAS, camera_rig
from s3pt_mm.toydrive.tables import (
    Record,
    attributes,
    calibration,
    categories,
    quaternion,
    write_image,
    write_table,
)
from s3pt_mm.toydrive.tracing import Instant
from s3pt_mm.toydrive.world import World

_EPOCH = 1_540_000_000_000_000
_WORLD_STEP = 3_600_000_000
MIN_PIXELS = 4  # shading pixels that an object needs to be annotated


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A (H, W) mask as nuImages stores it: COCO run lengths, base64. Fastest column by column."""
    packed = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(
        size=[int(v) for v in packed['size']], counts=base64.b64encode(packed['counts']).decode()
    )


def _annotations(
    config: ToyDriveConfig, world: World, photo: Photo, data: str
) -> dict[str, list[Record]]:
    """object_ann and surface_ann records of one photo."""
    # Run lengths go down the columns: one change of order for all masks.
    actors, labels = (
        np.asfortranarray(photo.enlarged(array)) for array in (photo.actors, photo.labels)
    )
    numbers, counts = np.unique(photo.actors, return_counts=True)
    objects = []
    for number in numbers[(counts >= MIN_PIXELS) & (numbers > 0) & (numbers < world.ego_number)]:
        mask = actors == number
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        actor = world.actors[number - 1]
        attribute = tx.attribute_of(actor.category, abs(actor.plan.speed))
        objects.append(
            dict(token=token(config, 'object', data, number), sample_data_token=data,
                 category_token=token(config, 'category', actor.category),
                 attribute_tokens=[token(config, 'attribute', attribute)] if attribute else [],
                 bbox=[int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1],
                 mask=encode_mask(mask))
        )  # fmt: skip
    surfaces = []
    for name, mask in (
        ('flat.driveable_surface', labels == tx.ROAD),
        ('vehicle.ego', actors == world.ego_number),
    ):
        if mask.any():
            surfaces.append(
                dict(token=token(config, 'surface', data, name), sample_data_token=data,
                     category_token=token(config, 'category', name), mask=encode_mask(mask))
            )  # fmt: skip
    return dict(object_ann=objects, surface_ann=surfaces)


def capture(config: ToyDriveConfig, root: Path, split: str, frame: int) -> dict[str, list[Record]]:
    """Write one image; returns its records by table."""
    index = world_of_frame(config, split, frame)
    world = get_world(config, index)
    seconds = time_of_frame(config, world, frame, 'nuimages', split)
    key = ('nuimages', split, frame)
    rig = camera_rig(generator(config, 'vehicle', *key))  # every photo from a car of its own
    camera = rig[CAMERAS[int(generator(config, 'channel', *key).integers(len(CAMERAS)))]]
    photo = render(
        Instant(world, seconds, with_ego=True, camera_rotation=camera.rotation), camera,
        scale=config.image_scale, rng=generator(config, 'camera', *key),
    )  # fmt: skip
    time = _EPOCH + index * _WORLD_STEP + round(seconds * 1e6)
    log = f'toydrive-{config.seed:04d}-world{index:05d}'
    filename = f'samples/{camera.name}/{log}__{camera.name}__{time}.jpg'
    write_image(root / filename, photo.image, quality=config.jpeg_quality)
    data, sample = token(config, 'data', *key), token(config, 'sample', *key)
    position, rotation = world.ego_pose(seconds)
    calibrated = calibration(config, camera, *key)
    calibrated['camera_distortion'] = []
    pose = dict(token=data, timestamp=time, translation=position.tolist(),
                rotation=quaternion(rotation), rotation_rate=[0.0, 0.0, 0.0],
                acceleration=[0.0, 0.0, 0.0], speed=world.ego_speed)  # fmt: skip
    picture = dict(token=data, sample_token=sample, ego_pose_token=data, timestamp=time,
                   calibrated_sensor_token=calibrated['token'], fileformat='jpg',
                   filename=filename, width=camera.width, height=camera.height,
                   is_key_frame=True, prev='', next='')  # fmt: skip
    return dict(
        calibrated_sensor=[calibrated],
        ego_pose=[pose],
        log=[dict(token=token(config, 'log', 'nuimages', index), logfile=log, vehicle='n900',
                  date_captured='2018-07-24', location='boston-seaport')],
        sample=[dict(token=sample, timestamp=time, key_camera_token=data,
                     log_token=token(config, 'log', 'nuimages', index))],
        sample_data=[picture],
        **_annotations(config, world, photo, data),
    )  # fmt: skip


def write_tables(
    config: ToyDriveConfig, root: Path, split: str, captures: list[dict[str, list[Record]]]
) -> None:
    """All tables of one split, from what ``capture`` returned, in frame order."""
    tables: dict[str, list[Record]] = {
        name: []
        for name in ('calibrated_sensor', 'ego_pose', 'log', 'sample', 'sample_data', 'object_ann',
                     'surface_ann')
    }  # fmt: skip
    for records in captures:
        for name, rows in records.items():
            known = (
                {row['token'] for row in tables[name]}
                if name in ('calibrated_sensor', 'log')
                else ()
            )
            tables[name] += [row for row in rows if row['token'] not in known]
    tables['category'] = categories(config, NUIMAGES_CATEGORIES)
    tables['attribute'] = attributes(config)
    tables['sensor'] = [
        dict(token=token(config, 'sensor', channel), channel=channel, modality='camera')
        for channel in CAMERAS
    ]
    for name, rows in tables.items():
        write_table(root / f'v1.0-{split}', name, rows)
