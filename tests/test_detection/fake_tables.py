"""nuScenes tables without sensor files: two mini_val scenes, every class near and far, moving.

Only what evaluation reads is real: boxes, poses, point counts, attributes. The vehicle drives and
turns, the LiDAR sits turned on its roof, as in nuScenes.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from pyquaternion import Quaternion

VERSION = 'v1.0-mini'
SCENES = ('scene-0103', 'scene-0916')  # the scenes of mini_val
SAMPLES_PER_SCENE = 3
SIZES = {  # width, length, height; metres
    'vehicle.car': (1.9, 4.6, 1.7), 'vehicle.truck': (2.5, 6.9, 2.8),
    'vehicle.bus.rigid': (2.9, 11.1, 3.5), 'vehicle.trailer': (2.9, 12.3, 3.9),
    'vehicle.construction': (2.7, 6.4, 3.2), 'human.pedestrian.adult': (0.7, 0.7, 1.8),
    'vehicle.motorcycle': (0.8, 2.1, 1.5), 'vehicle.bicycle': (0.6, 1.7, 1.3),
    'movable_object.trafficcone': (0.4, 0.4, 1.1), 'movable_object.barrier': (2.5, 0.5, 1.0),
}  # fmt: skip
STATIC = ('movable_object.trafficcone', 'movable_object.barrier')
DISTANCES = (8.0, 17.0, 26.0, 36.0, 47.0, 55.0)
ATTRIBUTES = {
    'vehicle': ('vehicle.moving', 'vehicle.parked'),
    'cycle': ('cycle.with_rider', 'cycle.without_rider'),
    'human': ('pedestrian.moving', 'pedestrian.standing'),
}


def write_fake_tables(root: Path) -> Path:
    """Writes ``root/v1.0-mini/*.json`` and returns ``root``."""
    tables: dict[str, list] = {name: [] for name in (
        'attribute', 'calibrated_sensor', 'category', 'ego_pose', 'instance', 'log', 'map',
        'sample', 'sample_annotation', 'sample_data', 'scene', 'sensor', 'visibility',
    )}  # fmt: skip
    generator = np.random.RandomState(11)
    tables['sensor'] = [{'token': 'lidar', 'channel': 'LIDAR_TOP', 'modality': 'lidar'}]
    tables['calibrated_sensor'] = [
        {
            'token': 'calibration', 'sensor_token': 'lidar', 'translation': [0.94, 0.0, 1.84],
            'rotation': Quaternion(axis=(0, 0, 1), degrees=-89.0).elements.tolist(),
            'camera_intrinsic': [],
        }
    ]  # fmt: skip
    tables['log'] = [{'token': 'log', 'logfile': 'log', 'location': 'singapore-onenorth'}]
    tables['map'] = [{'token': 'map', 'filename': 'maps/none.png', 'log_tokens': ['log']}]
    tables['visibility'] = [{'token': '4', 'level': 'v80-100'}]
    tables['category'] = [{'token': name, 'name': name} for name in SIZES]
    tables['attribute'] = [
        {'token': name, 'name': name} for name in (*sum(ATTRIBUTES.values(), ()), 'vehicle.stopped')
    ]
    for scene in SCENES:
        _write_scene(tables, scene, generator)
    folder = root / VERSION
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        (folder / f'{name}.json').write_text(json.dumps(rows))
    (root / 'maps').mkdir()
    cv2.imwrite(str(root / 'maps' / 'none.png'), np.zeros((4, 4), np.uint8))
    (root / 'samples' / 'LIDAR_TOP').mkdir(parents=True)
    for row in tables['sample_data']:
        (root / row['filename']).touch()
    (folder / 'splits.json').write_text(json.dumps({'one_scene': [SCENES[0]]}))
    return root


def _write_scene(tables: dict[str, list], scene: str, generator: np.random.RandomState) -> None:
    samples = [f'{scene}-{number}' for number in range(SAMPLES_PER_SCENE)]
    tables['scene'].append(
        {
            'token': scene, 'name': scene, 'log_token': 'log', 'nbr_samples': len(samples),
            'first_sample_token': samples[0], 'last_sample_token': samples[-1], 'description': '',
        }
    )  # fmt: skip
    for number, sample in enumerate(samples):
        time = 1_000_000 + 500_000 * number  # microseconds
        chain = {
            'prev': samples[number - 1] if number else '',
            'next': samples[number + 1] if number + 1 < len(samples) else '',
        }
        tables['sample'].append({'token': sample, 'timestamp': time, 'scene_token': scene, **chain})
        tables['ego_pose'].append(
            {
                'token': sample, 'timestamp': time,
                'translation': [400.0 + 2 * number, 1100.0 - number, 0.0],
                'rotation': list(Quaternion(axis=(0, 0, 1), radians=0.6 + 0.1 * number).elements),
            }
        )  # fmt: skip
        tables['sample_data'].append(
            {
                'token': sample, 'sample_token': sample, 'ego_pose_token': sample,
                'calibrated_sensor_token': 'calibration', 'timestamp': time,
                'fileformat': 'pcd', 'is_key_frame': True, 'height': 0, 'width': 0,
                'filename': f'samples/LIDAR_TOP/{sample}.bin', 'prev': '', 'next': '',
            }
        )  # fmt: skip
    for category, size in SIZES.items():
        for distance in DISTANCES:
            _write_object(tables, samples, category, size, distance, generator)


def _write_object(
    tables: dict[str, list],
    samples: list[str],
    category: str,
    size: tuple[float, float, float],
    distance: float,
    generator: np.random.RandomState,
) -> None:
    instance = f'{samples[0]}-{category}-{distance:g}'
    yaw, bearing = generator.uniform(-np.pi, np.pi, 2)
    moving = category not in STATIC and category != 'vehicle.bus.rigid' and generator.rand() < 0.5
    if category == 'vehicle.bus.rigid':
        moving = True  # a standing bus is 'stopped' for mmdet3d, 'parked' for nobody
    speed = generator.uniform(1.0, 6.0) if moving else 0.0
    start = np.array([402.0, 1099.0]) + distance * np.array([np.cos(bearing), np.sin(bearing)])
    kind = next((kind for kind in ATTRIBUTES if kind in category), None)
    if category in ('vehicle.motorcycle', 'vehicle.bicycle'):
        kind = 'cycle'
    without = kind is None or category in STATIC
    attributes = [] if without else [ATTRIBUTES[kind][0 if moving else 1]]
    tokens = [f'{instance}-{number}' for number in range(len(samples))]
    tables['instance'].append(
        {
            'token': instance, 'category_token': category, 'nbr_annotations': len(tokens),
            'first_annotation_token': tokens[0], 'last_annotation_token': tokens[-1],
        }
    )  # fmt: skip
    for number, (token, sample) in enumerate(zip(tokens, samples, strict=True)):
        place = start + (number - 1) * 0.5 * speed * np.array([np.cos(yaw), np.sin(yaw)])
        tables['sample_annotation'].append(
            {
                'token': token, 'sample_token': sample, 'instance_token': instance,
                'visibility_token': '4', 'attribute_tokens': attributes,
                'translation': [*place.tolist(), size[2] / 2], 'size': list(size),
                'rotation': Quaternion(axis=(0, 0, 1), radians=yaw).elements.tolist(),
                'prev': tokens[number - 1] if number else '',
                'next': tokens[number + 1] if number + 1 < len(tokens) else '',
                'num_lidar_pts': 5, 'num_radar_pts': 0,
            }
        )  # fmt: skip
