"""Small data sets with the true folder layout, written for each test run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
WIDTH, HEIGHT = 640, 360
TIMES = (0, 250_000, 500_000)  # microseconds: key frame, sweep, key frame
# The camera looks along the car's x axis: its z is forward, its x right, its y down.
CAMERA_ROTATION = (0.5, -0.5, 0.5, -0.5)


def street(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture with edges and smooth parts, BGR uint8."""
    random = np.random.RandomState(seed)
    image = np.linspace(40, 220, width, dtype=np.float32)[None, :, None].repeat(height, 0)
    image = (image + random.uniform(-30, 30, (1, 1, 3))).clip(0, 255).astype(np.uint8)
    for _ in range(25):
        corner = random.randint([0, 0], [width, height])
        size = random.randint(8, width // 4, 2)
        colour = random.randint(0, 256, 3).tolist()
        cv2.rectangle(image, corner.tolist(), (corner + size).tolist(), colour, -1)
    return cv2.GaussianBlur(image, (3, 3), 0.8)


def write_jpeg(path: Path, seed: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), street(seed, width, height), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return path


def write_sweep(path: Path, seed: int, num_points: int = 4000) -> Path:
    """Points around the car, half of them ahead, in nuScenes' five float32 a point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    points = random.uniform([-5, -20, -2, 0, 0], [40, 20, 3, 255, 31], (num_points, 5))
    points.astype(np.float32).tofile(path)
    return path


def write_nuscenes(root: Path, scenes: tuple[str, ...] = ('scene-0061', 'scene-0103')) -> Path:
    """nuScenes' tables with two key frames a scene and one sweep between, 6 cameras, moving car.

    scene-0061 is in mini_train, scene-0103 in mini_val.
    """
    tables: dict[str, list[dict]] = {
        name: []
        for name in (
            'attribute',
            'calibrated_sensor',
            'category',
            'ego_pose',
            'instance',
            'log',
            'map',
            'sample',
            'sample_annotation',
            'sample_data',
            'scene',
            'sensor',
            'visibility',
        )
    }
    add = {name: rows.append for name, rows in tables.items()}
    (root / 'maps').mkdir(parents=True)
    cv2.imwrite(str(root / 'maps' / 'blank.png'), np.zeros((8, 8), np.uint8))
    add['map'](
        {
            'token': 'map',
            'category': 'semantic_prior',
            'filename': 'maps/blank.png',
            'log_tokens': ['log'],
        }
    )
    add['log'](
        {
            'token': 'log',
            'logfile': 'n0',
            'vehicle': 'n0',
            'date_captured': '2018-07-24',
            'location': 'singapore-onenorth',
        }
    )
    add['visibility']({'token': '4', 'level': 'v80-100', 'description': ''})
    for name in ('vehicle.car', 'human.pedestrian.adult', 'static_object.bicycle_rack'):
        add['category']({'token': name, 'name': name, 'description': ''})
    intrinsic = [[500.0, 0.0, WIDTH / 2], [0.0, 500.0, HEIGHT / 2], [0.0, 0.0, 1.0]]
    for index, channel in enumerate(('LIDAR_TOP', *CAMERAS)):
        is_camera = channel != 'LIDAR_TOP'
        add['sensor'](
            {'token': channel, 'channel': channel, 'modality': 'camera' if is_camera else 'lidar'}
        )
        add['calibrated_sensor'](
            {
                'token': channel,
                'sensor_token': channel,
                'translation': [1.0, 0.1 * index, 1.5],
                'rotation': CAMERA_ROTATION if is_camera else [1.0, 0.0, 0.0, 0.0],
                'camera_intrinsic': intrinsic if is_camera else [],
            }
        )
    for scene in scenes:
        seed = int(scene[-4:])
        samples = [f'{scene}-sample{i}' for i in range(2)]
        add['scene'](
            {
                'token': scene,
                'log_token': 'log',
                'nbr_samples': 2,
                'name': scene,
                'first_sample_token': samples[0],
                'last_sample_token': samples[1],
                'description': '',
            }
        )
        for i, token in enumerate(samples):
            add['sample'](
                {
                    'token': token,
                    'timestamp': TIMES[2 * i],
                    'scene_token': scene,
                    'prev': samples[0] if i else '',
                    'next': '' if i else samples[1],
                }
            )
        for index, channel in enumerate(('LIDAR_TOP', *CAMERAS)):
            is_camera = channel != 'LIDAR_TOP'
            names = [f'{scene}-{channel}-{t}' for t in range(3)]
            for t, name in enumerate(names):
                folder = f'{"sweeps" if t == 1 else "samples"}/{channel}'
                file = f'{folder}/{name}' + ('.jpg' if is_camera else '.pcd.bin')
                # Cameras expose 10 ms after the sweep; the car drives 8 m/s and turns slowly.
                time = TIMES[t] + (10_000 if is_camera else 0)
                yaw = 0.1 * time / 1e6
                add['ego_pose'](
                    {
                        'token': name,
                        'timestamp': time,
                        'rotation': [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)],
                        'translation': [1000 + 8 * time / 1e6, 500.0, 0.0],
                    }
                )
                add['sample_data'](
                    {
                        'token': name,
                        'sample_token': samples[(t + 1) // 2],
                        'ego_pose_token': name,
                        'calibrated_sensor_token': channel,
                        'timestamp': time,
                        'filename': file,
                        'fileformat': 'jpg' if is_camera else 'pcd',
                        'is_key_frame': t != 1,
                        'height': HEIGHT if is_camera else 0,
                        'width': WIDTH if is_camera else 0,
                        'prev': names[t - 1] if t else '',
                        'next': names[t + 1] if t < 2 else '',
                    }
                )
                if is_camera:
                    write_jpeg(root / file, seed + 10 * index + t)
                else:
                    write_sweep(root / file, seed + t)
        for k, (category, points) in enumerate(
            (
                ('vehicle.car', 12),
                ('vehicle.car', 0),
                ('human.pedestrian.adult', 3),
                ('static_object.bicycle_rack', 5),
            )
        ):
            anns = [f'{scene}-ann{k}-{i}' for i in range(2)]
            add['instance'](
                {
                    'token': f'{scene}-{k}',
                    'category_token': category,
                    'nbr_annotations': 2,
                    'first_annotation_token': anns[0],
                    'last_annotation_token': anns[1],
                }
            )
            for i, token in enumerate(anns):
                yaw = 0.3 + k
                add['sample_annotation'](
                    {
                        'token': token,
                        'sample_token': samples[i],
                        'instance_token': f'{scene}-{k}',
                        'visibility_token': '4',
                        'attribute_tokens': [],
                        'translation': [1015 + 3 * k + 2.0 * i, 498 + k + 1.0 * i, 0.8],
                        'size': [1.8 + k, 4.5, 1.6],
                        'rotation': [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)],
                        'prev': anns[0] if i else '',
                        'next': '' if i else anns[1],
                        'num_lidar_pts': points,
                        'num_radar_pts': 0,
                    }
                )
    (root / 'v1.0-mini').mkdir()
    for name, rows in tables.items():
        (root / 'v1.0-mini' / f'{name}.json').write_text(json.dumps(rows))
    return root


def keep_one_key_frame(root: Path, version: str = 'v1.0-mini') -> Path:
    """Cut tables down to their first scene's first key frame; its objects were there once."""
    folder = root / version
    tables = {path.stem: json.loads(path.read_text()) for path in folder.glob('*.json')}
    scene = tables['scene'][0]
    token = scene['first_sample_token']
    tables['scene'] = [{**scene, 'nbr_samples': 1, 'last_sample_token': token}]
    alone = {'prev': '', 'next': ''}
    tables['sample'] = [{**row, **alone} for row in tables['sample'] if row['token'] == token]
    for name in ('sample_data', 'sample_annotation'):
        rows = [row for row in tables[name] if row['sample_token'] == token]
        tables[name] = [{**row, **alone} for row in rows if row.get('is_key_frame', True)]
    last = {row['instance_token']: row['token'] for row in tables['sample_annotation']}
    tables['instance'] = [
        {**row, 'nbr_annotations': 1, 'last_annotation_token': last[row['token']]}
        | {'first_annotation_token': last[row['token']]}
        for row in tables['instance']
        if row['token'] in last
    ]
    for name, rows in tables.items():
        (folder / f'{name}.json').write_text(json.dumps(rows))
    return root
