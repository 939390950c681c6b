"""One sample of nuScenes' tables -> its info in mmdet3d's v2 format.

The fields are those of mmdetection3d 1.4's converter; added are each camera's ``ego2global`` at its
own exposure, ``height``, ``width``, ``lidar2img``, and, on request, ``image_sweeps``. docs/data.md
has the schema.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import inside
from s3pt_mm.data.datasets.nuscenes_images import CAMERAS
from s3pt_mm.data.geometry import invert, lidar_to_camera, rigid

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

CLASSES = (
    'car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle', 'pedestrian',
    'traffic_cone', 'barrier',
)  # fmt: skip
LIDAR = 'LIDAR_TOP'
NUM_PTS_FEATS = 5  # x, y, z, intensity, ring
SECONDS_APART = (1e-3, 30.0)
"""Shortest and longest plausible time between key frames. Seconds, milliseconds and nanoseconds
in place of microseconds fall outside: key frames are 0.05 to 1 s apart."""


class SampleBuilder:
    """Builds the info of one sample from loaded tables.

    Args:
        nusc: nuscenes-devkit's tables.
        max_sweeps: LiDAR sweeps before the key frame to list.
        image_sweeps: also list the camera images between key frames, each with the LiDAR sweep
            nearest in time.
    """

    def __init__(self, nusc: NuScenes, *, max_sweeps: int = 10, image_sweeps: bool = False) -> None:
        self.nusc, self.max_sweeps, self.image_sweeps = nusc, max_sweeps, image_sweeps
        self._calibrations: dict[str, dict[str, Any]] = {}
        self._existing: set[str] = set()

    def build(
        self, sample: dict[str, Any], previous: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Info of a key frame; ``sample_idx`` is left to the caller.

        Args:
            sample: its row.
            previous: the row of the scene's key frame before it, to compare the time stamps.

        Raises:
            DataError: if a file that the tables name is absent, a table refers to nothing, a row
                has values that cannot be, time stamps are implausible as microseconds, or the
                sample has no LiDAR sweep.
        """
        if LIDAR not in sample['data']:
            raise DataError(
                self._tables('sample_data'),
                f'sample {sample["token"]} has no key frame of {LIDAR}, the frame of its boxes',
                'Leave such samples out with --on-error skip; to pre-train on the images alone, '
                'give their folder to ImageFolderDataset',
            )
        try:
            if previous:
                self._check_times(previous, sample)
            return self._build(sample)
        except KeyError as error:
            raise self.dangling(f'sample {sample["token"]}', error) from error

    def dangling(self, what: str, error: Exception) -> DataError:
        """The error of a row that names one that is not there."""
        return DataError(
            Path(self.nusc.dataroot) / self.nusc.version,
            f'{what} refers to {error}, which the tables do not have',
            'Download the metadata again',
        )

    def _build(self, sample: dict[str, Any]) -> dict[str, Any]:
        get = self.nusc.get
        lidar = get('sample_data', sample['data'][LIDAR])
        lidar2ego, ego2global = self._extrinsics(lidar), self.pose(lidar)
        return {
            'token': sample['token'],
            'timestamp': sample['timestamp'] / 1e6,
            'ego2global': ego2global.tolist(),
            'images': {
                cam: self.image(get('sample_data', sample['data'][cam]), lidar, key_frame=True)
                for cam in CAMERAS
                if cam in sample['data']
            },
            'lidar_points': {
                'num_pts_feats': NUM_PTS_FEATS,
                'lidar_path': self.file(lidar).name,
                'lidar2ego': lidar2ego.tolist(),
            },
            'lidar_sweeps': self._lidar_sweeps(lidar),
            'instances': self._instances(sample, invert(ego2global @ lidar2ego)),
        }

    def _check_times(self, previous: dict[str, Any], sample: dict[str, Any]) -> None:
        """Speeds are distances over these times: a wrong unit makes them wrong without a word."""
        seconds = (sample['timestamp'] - previous['timestamp']) / 1e6
        shortest, longest = SECONDS_APART
        if not shortest <= seconds <= longest:
            raise DataError(
                self._tables('sample'),
                f'sample {sample["token"]} has the time stamp {sample["timestamp"]}, the key frame '
                f'before it {previous["timestamp"]}: as microseconds {seconds:g} s apart, not '
                f'{shortest:g} to {longest:g} s',
                'Write all time stamps (sample, sample_data, ego_pose) in microseconds, as whole '
                'numbers',
            )

    def _tables(self, name: str) -> Path:
        return Path(self.nusc.dataroot) / self.nusc.version / f'{name}.json'

    def _bad_row(self, table: str, row: dict[str, Any], problem: object) -> DataError:
        return DataError(
            self._tables(table),
            f'{row["token"]}: {problem}',
            'Correct the row, or leave its samples out with --on-error skip',
        )

    def _rigid(self, table: str, row: dict[str, Any]) -> np.ndarray:
        try:
            return rigid(row['rotation'], row['translation'])
        except (TypeError, ValueError) as error:
            raise self._bad_row(table, row, error) from error

    def file(self, record: dict[str, Any]) -> Path:
        """Path of a sample_data record relative to the root, after checking that it exists."""
        path = inside(Path(), record['filename'], self._tables('sample_data'))
        if record['filename'] not in self._existing:
            if not os.path.isfile(os.path.join(self.nusc.dataroot, path)):
                is_sweep = not record['is_key_frame']
                raise DataError(
                    Path(self.nusc.dataroot) / path,
                    'the tables name this file, but it is absent',
                    'Download the sweeps too, or use --max-sweeps 0 without --image-sweeps'
                    if is_sweep
                    else 'Download the missing part, or leave its samples out with --on-error skip',
                )
            self._existing.add(record['filename'])
        return path

    def _extrinsics(self, record: dict[str, Any]) -> np.ndarray:
        calibration = self._calibration(record)
        return calibration['sensor2ego']

    def _calibration(self, record: dict[str, Any]) -> dict[str, Any]:
        token = record['calibrated_sensor_token']
        if token not in self._calibrations:
            row = self.nusc.get('calibrated_sensor', token)
            sensor2ego = self._rigid('calibrated_sensor', row)
            # The lists are shared by all samples that share the calibration: pickle stores them
            # once.
            self._calibrations[token] = {
                'sensor2ego': sensor2ego,
                'sensor2ego_list': sensor2ego.tolist(),
                'cam2img': row['camera_intrinsic'],
            }
        return self._calibrations[token]

    def pose(self, record: dict[str, Any]) -> np.ndarray:
        """(4, 4) ego to global at the record's own time."""
        return self._rigid('ego_pose', self.nusc.get('ego_pose', record['ego_pose_token']))

    def image(
        self, record: dict[str, Any], lidar: dict[str, Any], *, key_frame: bool
    ) -> dict[str, Any]:
        """A camera's entry in an info, projected from the sweep ``lidar``."""
        calibration = self._calibration(record)
        cam2img = np.array(calibration['cam2img'], dtype=np.float64)
        if cam2img.shape != (3, 3) or not np.isfinite(cam2img).all():
            row = self.nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
            problem = f'camera_intrinsic is {calibration["cam2img"]}, not 3 x 3 finite numbers'
            raise self._bad_row('calibrated_sensor', row, problem)
        ego2global = self.pose(record)
        lidar2cam = lidar_to_camera(
            lidar2ego=self._extrinsics(lidar),
            lidar_ego2global=self.pose(lidar),
            cam2ego=calibration['sensor2ego'],
            cam_ego2global=ego2global,
        )
        lidar2img = np.eye(4)
        lidar2img[:3] = cam2img @ lidar2cam[:3]
        path = self.file(record)
        return {
            'img_path': path.name if key_frame else path.as_posix(),
            'height': record['height'],
            'width': record['width'],
            'cam2img': calibration['cam2img'],
            'cam2ego': calibration['sensor2ego_list'],
            'lidar2cam': lidar2cam.tolist(),
            'lidar2img': lidar2img.tolist(),
            'ego2global': ego2global.tolist(),
            'sample_data_token': record['token'],
            'timestamp': record['timestamp'] / 1e6,
        }

    def _lidar_sweeps(self, key: dict[str, Any]) -> list[dict[str, Any]]:
        sweeps: list[dict[str, Any]] = []
        key2global = self.pose(key) @ self._extrinsics(key)
        record = key
        while len(sweeps) < self.max_sweeps and record['prev']:
            record = self.nusc.get('sample_data', record['prev'])
            lidar2ego, ego2global = self._extrinsics(record), self.pose(record)
            sweeps.append(
                {
                    'timestamp': record['timestamp'] / 1e6,
                    'ego2global': ego2global.tolist(),
                    'sample_data_token': record['token'],
                    'lidar_points': {
                        'num_pts_feats': NUM_PTS_FEATS,
                        'lidar_path': self.file(record).as_posix(),
                        'lidar2ego': self._calibration(record)['sensor2ego_list'],
                        'lidar2sensor': (invert(ego2global @ lidar2ego) @ key2global).tolist(),
                    },
                }
            )
        return sweeps

    def _instances(self, sample: dict[str, Any], global2lidar: np.ndarray) -> list[dict[str, Any]]:
        from nuscenes.eval.detection.utils import category_to_detection_name

        instances = []
        for token in sample['anns']:
            row = self.nusc.get('sample_annotation', token)
            name = category_to_detection_name(row['category_name'])
            label = CLASSES.index(name) if name in CLASSES else -1
            box2lidar = global2lidar @ self._rigid('sample_annotation', row)
            size = np.array(row['size'], dtype=np.float64)
            if size.shape != (3,) or not (np.isfinite(size) & (size > 0)).all():
                problem = f'size is {row["size"]}, not 3 positive numbers of metres'
                raise self._bad_row('sample_annotation', row, problem)
            width, length, height = row['size']
            velocity = global2lidar[:3, :3] @ np.append(self.nusc.box_velocity(token)[:2], 0.0)
            instances.append(
                {
                    'bbox_label': label,
                    'bbox_3d': [
                        *box2lidar[:3, 3].tolist(),
                        length,
                        width,
                        height,
                        float(np.arctan2(box2lidar[1, 0], box2lidar[0, 0])),
                    ],
                    'bbox_3d_isvalid': row['num_lidar_pts'] + row['num_radar_pts'] > 0,
                    'bbox_label_3d': label,
                    'num_lidar_pts': row['num_lidar_pts'],
                    'num_radar_pts': row['num_radar_pts'],
                    'velocity': velocity[:2].tolist(),
                }
            )
        return instances
