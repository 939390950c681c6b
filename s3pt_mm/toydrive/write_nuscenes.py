"""nuScenes ``v1.0-mini`` tables and maps, from what the captures of all key frames returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.capture_nuscenes import key_time, sensors_of, stamp
from s3pt_mm.toydrive.config import SCENE_NAMES, ToyDriveConfig
from s3pt_mm.toydrive.frames import generator, get_world, token
from s3pt_mm.toydrive.sensors import CAMERAS, LIDAR, Camera
from s3pt_mm.toydrive.shapes import rotation_z
from s3pt_mm.toydrive.tables import (  # fmt: skip
    Record,
    attributes,
    calibration,
    categories,
    quaternion,
    write_image,
    write_table,
)
from s3pt_mm.toydrive.world import World

VERSION = 'v1.0-mini'
LOCATIONS = (
    'singapore-onenorth', 'boston-seaport', 'singapore-queenstown', 'singapore-hollandvillage',
)  # fmt: skip
_MAP_RESOLUTION = 0.1  # metres a pixel, the devkit's


class GlobalFrame:
    """Where a scene lies on its location's map: scenes side by side, each turned its own way."""

    def __init__(self, config: ToyDriveConfig, scene: int, world: World) -> None:
        street = world.street
        # Longest possible street of this config, so that tiles of all scenes are alike.
        longest = 130.0 + 120.0 + 8.5 * world.duration
        self.tile = float(np.ceil(np.hypot(longest / 2, 120.0) * 2 + 20))
        self.location = LOCATIONS[scene % len(LOCATIONS)]
        column = scene // len(LOCATIONS)
        self.yaw = float(generator(config, 'map', scene).uniform(-np.pi, np.pi))
        self.rotation = rotation_z(self.yaw)
        middle = street.to_world((street.start + street.end) / 2, 0.0)
        self.offset = np.array([self.tile * (column + 0.5), self.tile / 2, 0.0]) - self.rotation @ [
            *middle,
            0.0,
        ]

    def point(self, place: np.ndarray) -> np.ndarray:
        """World point (..., 3) in the global frame."""
        return place @ self.rotation.T + self.offset


def write_tables(config: ToyDriveConfig, root: Path, captures: list[dict[str, Any]]) -> None:
    """All tables and map images of what ``capture`` wrote."""
    tables: dict[str, list[Record]] = {
        name: []
        for name in ('sensor', 'calibrated_sensor', 'ego_pose', 'log', 'scene', 'sample',
                     'sample_data', 'sample_annotation', 'instance', 'map')
    }  # fmt: skip
    tables['category'] = categories(config, tx.NUSCENES_CATEGORIES)
    tables['attribute'] = attributes(config)
    tables['visibility'] = [
        dict(token=str(i + 1), level=level, description='')
        for i, level in enumerate(('v0-40', 'v40-60', 'v60-80', 'v80-100'))
    ]
    for channel in (LIDAR, *CAMERAS):
        modality = 'lidar' if channel == LIDAR else 'camera'
        tables['sensor'].append(
            dict(token=token(config, 'sensor', channel), channel=channel, modality=modality)
        )
    maps: dict[str, list[tuple[World, GlobalFrame, str]]] = {}
    for scene in range(config.scenes):
        world = get_world(config, scene)
        frame = GlobalFrame(config, scene, world)
        parts = sorted((c for c in captures if c['scene'] == scene), key=lambda c: c['sample'])
        log = token(config, 'log', scene)
        _scene_tables(config, tables, scene, world, frame, parts, log)
        maps.setdefault(frame.location, []).append((world, frame, log))
    for location, members in maps.items():
        filename = f'maps/{token(config, "map", location)}.png'
        write_image(root / filename, _draw_map(members))
        tables['map'].append(
            dict(token=token(config, 'map', location), category='semantic_prior',
                 filename=filename, log_tokens=[log for _, _, log in members])
        )  # fmt: skip
    for name, records in tables.items():
        write_table(root / VERSION, name, records)


def _scene_tables(
    config: ToyDriveConfig, tables: dict[str, list[Record]], scene: int, world: World,
    frame: GlobalFrame, parts: list[dict[str, Any]], log: str,
) -> None:  # fmt: skip
    name = SCENE_NAMES[scene]
    count = config.samples_per_scene
    samples = [token(config, 'sample', name, k) for k in range(count)]
    words = {'day': 'Day', 'night': 'Night', 'fog': 'Fog'}[world.light.kind]
    tables['log'].append(
        dict(token=log, logfile=f'toydrive-{config.seed:04d}-{name}', vehicle=f'n90{scene}',
             date_captured='2018-07-24', location=frame.location)
    )  # fmt: skip
    tables['scene'].append(
        dict(token=token(config, 'scene', name), log_token=log, nbr_samples=count, name=name,
             first_sample_token=samples[0], last_sample_token=samples[-1],
             description=f'ToyDrive street, {words.lower()}')
    )  # fmt: skip
    for k, sample in enumerate(samples):
        tables['sample'].append(
            dict(token=sample, timestamp=stamp(scene, key_time(k)),
                 scene_token=token(config, 'scene', name),
                 prev=samples[k - 1] if k else '', next=samples[k + 1] if k + 1 < count else '')
        )  # fmt: skip
    rig, lidar = sensors_of(config, scene)
    for camera in rig.values():
        tables['calibrated_sensor'].append(calibration(config, camera, scene))
    tables['calibrated_sensor'].append(
        dict(token=token(config, 'calibration', scene, LIDAR),
             sensor_token=token(config, 'sensor', LIDAR), translation=lidar.translation.tolist(),
             rotation=quaternion(lidar.rotation), camera_intrinsic=[])
    )  # fmt: skip
    _data_records(config, tables, scene, world, frame, parts, samples, rig)
    _annotation_records(config, tables, scene, world, frame, parts, samples)


def _data_records(
    config: ToyDriveConfig, tables: dict[str, list[Record]], scene: int, world: World,
    frame: GlobalFrame, parts: list[dict[str, Any]], samples: list[str], rig: dict[str, Camera],
) -> None:  # fmt: skip
    for channel in (LIDAR, *CAMERAS):
        chain = sorted(
            (
                (f['seconds'], part['sample'], f)
                for part in parts
                for f in part['files']
                if f['channel'] == channel
            ),
            key=lambda entry: entry[0],
        )
        tokens = [token(config, 'data', entry[2]['filename']) for entry in chain]
        for i, (seconds, sample, file) in enumerate(chain):
            position, rotation = world.ego_pose(seconds)
            size = (0, 0) if channel == LIDAR else (rig[channel].height, rig[channel].width)
            time = stamp(scene, seconds)
            tables['ego_pose'].append(
                dict(token=tokens[i], timestamp=time,
                     rotation=quaternion(frame.rotation @ rotation),
                     translation=frame.point(position).tolist())
            )  # fmt: skip
            tables['sample_data'].append(
                dict(token=tokens[i], ego_pose_token=tokens[i], timestamp=time,
                     # A sweep belongs to the key frame after it: the devkit interpolates boxes so.
                     sample_token=samples[sample if file['key'] else sample + 1],
                     calibrated_sensor_token=token(config, 'calibration', scene, channel),
                     fileformat='pcd' if channel == LIDAR else 'jpg', is_key_frame=file['key'],
                     height=size[0], width=size[1], filename=file['filename'],
                     prev=tokens[i - 1] if i else '',
                     next=tokens[i + 1] if i + 1 < len(tokens) else '')
            )  # fmt: skip


def _annotation_records(
    config: ToyDriveConfig, tables: dict[str, list[Record]], scene: int, world: World,
    frame: GlobalFrame, parts: list[dict[str, Any]], samples: list[str],
) -> None:  # fmt: skip
    for actor in world.actors:
        found = [
            (part['sample'], box)
            for part in parts
            for box in part['boxes']
            if box['number'] == actor.number
        ]
        # Never met by a beam, or met in one key frame only (no velocity): not annotated.
        if len(found) < 2 or not any(box['points'] for _, box in found):
            continue
        instance = token(config, 'instance', scene, actor.number)
        tokens = [token(config, 'annotation', scene, actor.number, k) for k, _ in found]
        attribute = tx.attribute_of(actor.category, abs(actor.plan.speed))
        for i, (k, box) in enumerate(found):
            place, _ = world.pose_of(actor, key_time(k))
            axes = world.rotation_of(actor, key_time(k))
            centre = frame.point(place + axes[:, 2] * actor.plan.size[2] / 2)
            tables['sample_annotation'].append(
                dict(token=tokens[i], sample_token=samples[k], instance_token=instance,
                     visibility_token=str(box['level']),
                     attribute_tokens=[token(config, 'attribute', attribute)] if attribute else [],
                     translation=centre.tolist(), size=list(actor.plan.size),
                     rotation=quaternion(frame.rotation @ axes),
                     prev=tokens[i - 1] if i else '',
                     next=tokens[i + 1] if i + 1 < len(tokens) else '',
                     num_lidar_pts=box['points'], num_radar_pts=0)
            )  # fmt: skip
        tables['instance'].append(
            dict(token=instance, category_token=token(config, 'category', actor.category),
                 nbr_annotations=len(found), first_annotation_token=tokens[0],
                 last_annotation_token=tokens[-1])
        )  # fmt: skip


def _draw_map(members: list[tuple[World, GlobalFrame, str]]) -> np.ndarray:
    """Semantic prior of a location: road and pavement white, 10 pixels a metre, y upwards."""
    tile = max(frame.tile for _, frame, _ in members)
    width = int(max(frame.offset[0] + frame.tile for _, frame, _ in members) / _MAP_RESOLUTION)
    height = int(tile / _MAP_RESOLUTION)
    canvas = np.zeros((height, width), np.uint8)
    for world, frame, _ in members:
        street = world.street
        outer = street.half + street.pavement
        s = np.arange(street.start, street.end + 1, 2.0)
        outlines = [np.concatenate([street.to_world(s, -outer), street.to_world(s[::-1], outer)])]
        for c in street.crossings:
            reach = street.crossing_half + street.pavement
            corners = np.array([[-reach, -90], [reach, -90], [reach, 90], [-reach, 90]])
            outlines.append(street.to_world(c + corners[:, 0], corners[:, 1]))
        for outline in outlines:
            points = frame.point(np.concatenate([outline, np.zeros((len(outline), 1))], axis=1))
            pixels = np.stack([points[:, 0], height * _MAP_RESOLUTION - points[:, 1]], axis=1)
            cv2.fillPoly(canvas, [np.round(pixels / _MAP_RESOLUTION).astype(np.int32)], 255)
    return canvas
