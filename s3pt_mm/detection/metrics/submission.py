"""Predicted boxes in the form of nuScenes' detection submission.

mmdet3d's ``NuScenesMetric`` writes submissions too, but drops boxes beyond the official range of
their class before anybody can ask for another range, and turns box after box through quaternions
in Python. This module keeps every box and works on arrays; a test compares the two.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import write_text

CAMERA_META = {
    'use_camera': True,
    'use_lidar': False,
    'use_radar': False,
    'use_map': False,
    'use_external': False,
}
"""The submission's declaration of sensors, all five keys of nuScenes' format."""

MOVING_SPEED = 0.2
"""Speed in m/s above which mmdet3d's ``NuScenesMetric`` calls an object moving."""

_VEHICLES = ('car', 'construction_vehicle', 'bus', 'truck', 'trailer')
_CYCLES = ('bicycle', 'motorcycle')


def lidar_to_global(nusc: NuScenes, token: str) -> np.ndarray:
    """(4, 4) from the LiDAR frame of a sample's key frame to the world, metres."""
    sensor = nusc.get('sample_data', nusc.get('sample', token)['data']['LIDAR_TOP'])
    to_ego = nusc.get('calibrated_sensor', sensor['calibrated_sensor_token'])
    to_world = nusc.get('ego_pose', sensor['ego_pose_token'])
    return _matrix(to_world) @ _matrix(to_ego)


def submission_boxes(
    boxes: LiDARInstance3DBoxes,
    scores: torch.Tensor,
    labels: torch.Tensor,
    *,
    token: str,
    lidar2global: np.ndarray,
    classes: Sequence[str],
) -> list[dict]:
    """Boxes of one sample as nuScenes wants them: global, centre of gravity, width-length-height.

    Args:
        boxes: N boxes with nine columns (x, y, z of the bottom, length, width, height, yaw, vx,
            vy) in the sample's LiDAR frame, metres, rad and m/s.
        scores: (N,).
        labels: (N,) indices into ``classes``.
        token: The sample's token.
        lidar2global: (4, 4), see :func:`lidar_to_global`.
        classes: Names by label.

    Raises:
        ValueError: A box or score is not finite, or a box has no velocity.
    """
    if boxes.tensor.shape[1] != 9:
        raise ValueError(
            f'sample {token}: boxes have {boxes.tensor.shape[1]} columns, expected 9 (velocity '
            'included)'
        )
    tensor = boxes.tensor.detach().cpu().double().numpy()
    confidence = scores.detach().cpu().double().numpy()
    if not (np.isfinite(tensor).all() and np.isfinite(confidence).all()):
        raise ValueError(f'sample {token}: a predicted box or score is not finite')
    rotation = lidar2global[:3, :3]
    centres = boxes.gravity_center.detach().cpu().double().numpy()
    centres = centres @ rotation.T + lidar2global[:3, 3]
    velocities = np.pad(tensor[:, 7:9], ((0, 0), (0, 1))) @ rotation.T
    orientations = _times_yaw(Quaternion(matrix=lidar2global, rtol=1e-5, atol=1e-7), tensor[:, 6])
    # The devkit's rule of attribute uses the speed over ground, as velocities are turned, not cut.
    speeds = np.linalg.norm(velocities[:, :2], axis=1)
    names = [classes[label] for label in labels.tolist()]
    return [
        {
            'sample_token': token,
            'translation': centres[i].tolist(),
            'size': tensor[i, [4, 3, 5]].tolist(),
            'rotation': orientations[i].tolist(),
            'velocity': velocities[i, :2].tolist(),
            'detection_name': name,
            'detection_score': float(confidence[i]),
            'attribute_name': attribute(name, speeds[i]),
        }
        for i, name in enumerate(names)
    ]


def attribute(name: str, speed: float) -> str:
    """An attribute for a class at a speed in m/s: the rule of mmdet3d's ``NuScenesMetric``.

    PETR predicts no attributes; this is what published figures of mAAE and NDS rest on.
    """
    moving = speed > MOVING_SPEED
    if name in _VEHICLES:
        if moving:
            return 'vehicle.moving'
        return 'vehicle.stopped' if name == 'bus' else 'vehicle.parked'
    if name in _CYCLES:
        return 'cycle.with_rider' if moving else 'cycle.without_rider'
    if name == 'pedestrian':
        return 'pedestrian.moving' if moving else 'pedestrian.standing'
    return ''


def write_submission(
    results: Mapping[str, Sequence[Mapping]],
    path: str | os.PathLike[str],
    *,
    meta: Mapping[str, bool] = CAMERA_META,
) -> Path:
    """Writes a submission file as a whole or not at all.

    Args:
        results: Sample token -> boxes of :func:`submission_boxes`.
        path: The JSON file; missing folders are made.
        meta: Which sensors were used.
    """
    write_text(path, json.dumps({'meta': dict(meta), 'results': results}))
    return Path(path)


def read_submission(path: str | os.PathLike[str]) -> dict[str, list[dict]]:
    """The ``results`` of a submission file.

    Raises:
        DataError: The file is no submission.
    """
    content = json.loads(Path(path).read_text(encoding='utf-8'))
    if not isinstance(content, dict) or not isinstance(content.get('results'), dict):
        raise DataError(
            path,
            'no nuScenes submission: expected an object with "meta" and "results"',
            "Write one with s3pt-test and the metric's `submission` argument",
        )
    return content['results']


def _matrix(record: Mapping) -> np.ndarray:
    return transform_matrix(record['translation'], Quaternion(record['rotation']))


def _times_yaw(frame: Quaternion, yaw: np.ndarray) -> np.ndarray:
    """(N, 4) quaternions (w, x, y, z) of a turn by yaw about z, then by ``frame``."""
    w, x, y, z = frame.elements
    cosine, sine = np.cos(yaw / 2), np.sin(yaw / 2)
    return np.stack(
        [
            w * cosine - z * sine,
            x * cosine + y * sine,
            y * cosine - x * sine,
            z * cosine + w * sine,
        ],
        axis=1,
    )
