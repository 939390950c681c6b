"""Waymo Open Dataset, perception, version 2: one Parquet file a component and segment.

Read with pyarrow, without TensorFlow. Column names and the geometry of range images follow the
data set's own version-2 code (waymo-open-dataset-tf, components CameraImage, CameraCalibration,
VehiclePose, LiDAR, LiDARCalibration, LiDARPose).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep
from s3pt_mm.data.formats.tables import LazyTable, read_table
from s3pt_mm.data.geometry import invert, transform_points

CAMERAS = {1: 'FRONT', 2: 'FRONT_LEFT', 3: 'FRONT_RIGHT', 4: 'SIDE_LEFT', 5: 'SIDE_RIGHT'}
TOP = 1  # laser name
# Waymo's cameras look along x, with z up; pinholes look along z, with y down.
_AXES = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
_TIME = 'key.frame_timestamp_micros'
_IMAGE, _CALIBRATION = '[CameraImageComponent]', '[CameraCalibrationComponent]'
_RANGE, _BEAMS = '[LiDARComponent].range_image_return1', '[LiDARCalibrationComponent]'
_PIXEL_POSE = '[LiDARPoseComponent].range_image_return1'
_WORLD = '[VehiclePoseComponent].world_from_vehicle.transform'


class Waymo(LogFormat):
    """``<root>/{camera_image,camera_calibration,vehicle_pose,lidar,...}/<segment>.parquet``.

    The first return of the top LiDAR, in the vehicle's frame at the frame's time; images are
    reached through the vehicle's pose at their own time (rolling shutter is left out), with the
    published Brown lens. LiDAR components may be absent.
    """

    help = 'Waymo perception v2 (Parquet): the folder that holds camera_image/, lidar/, ...'

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        found = (path.stem for path in (self.root / 'camera_image').glob('*.parquet'))
        for segment in self.some(found, 'camera_image/*.parquet', 'Give the folder of a split'):
            yield from self._segment(segment)

    def _segment(self, segment: str) -> Iterator[Sample]:
        cameras = {
            row['key.camera_name']: row
            for row in read_table(self._file('camera_calibration', segment))
        }
        world = {row[_TIME]: _matrix(row[_WORLD]) for row in read_table(
            self._file('vehicle_pose', segment), [_TIME, _WORLD]
        )}  # fmt: skip
        images = LazyTable(
            self._file('camera_image', segment),
            [_TIME, 'key.camera_name', f'{_IMAGE}.pose.transform'],
        )
        sweeps = self._sweeps(segment)
        frames: dict[int, dict[str, CameraImage]] = {}
        for row, keys in enumerate(images.keys):
            time, camera = keys[_TIME], keys['key.camera_name']
            if camera in cameras and time in world:
                name = CAMERAS.get(camera, f'CAMERA_{camera}')
                pose = _matrix(keys[f'{_IMAGE}.pose.transform'])
                frames.setdefault(time, {})[name] = _camera(
                    cameras[camera],
                    invert(pose) @ world[time],
                    lambda row=row: images.value(row, f'{_IMAGE}.image'),
                )
        for time in sorted(frames):
            yield Sample(
                token=f'{segment}_{time}',
                sequence=segment,
                images=frames[time],
                sweep=sweeps(time, world[time]),
                timestamp=time * 1e-6,
                ego2global=world[time],
            )

    def _sweeps(self, segment: str):
        """Returns (time, world from vehicle) -> the sweep of a frame, or None."""
        path = self.root / 'lidar' / f'{segment}.parquet'
        if not path.is_file():
            return lambda time, world: None
        calibration = self._file('lidar_calibration', segment)
        tops = [row for row in read_table(calibration) if row['key.laser_name'] == TOP]
        if not tops:
            raise DataError(calibration, f'has no laser {TOP}, the top one', 'Download it again')
        beams = tops[0]
        lidar, poses = (
            LazyTable(self._file(name, segment), [_TIME, 'key.laser_name'])
            for name in ('lidar', 'lidar_pose')
        )
        rows, pose_rows = (
            {k[_TIME]: i for i, k in enumerate(table.keys) if k['key.laser_name'] == TOP}
            for table in (lidar, poses)
        )

        def sweep(time: int, world: np.ndarray) -> Sweep | None:
            if time not in rows:
                return None

            def points() -> np.ndarray:
                image = lidar.array(rows[time], _RANGE)
                pose = poses.array(pose_rows[time], _PIXEL_POSE) if time in pose_rows else None
                return range_image_points(image, beams, pose, world)

            return Sweep(points=points)

        return sweep

    def _file(self, component: str, segment: str) -> Path:
        path = self.root / component / f'{segment}.parquet'
        if not path.is_file():
            raise DataError(path, 'no such component', f'Download {component} of this segment')
        return path


def _camera(row: Mapping[str, Any], vehicle2vehicle: np.ndarray, encoded: Any) -> CameraImage:
    value = {name: row[f'{_CALIBRATION}.intrinsic.{name}'] for name in (
        'f_u', 'f_v', 'c_u', 'c_v', 'k1', 'k2', 'p1', 'p2', 'k3'
    )}  # fmt: skip
    cam2vehicle = _matrix(row[f'{_CALIBRATION}.extrinsic.transform'])
    lens = [value[name] for name in ('k1', 'k2', 'p1', 'p2', 'k3')]
    return CameraImage(
        encoded=encoded,
        size=(row[f'{_CALIBRATION}.width'], row[f'{_CALIBRATION}.height']),
        cam2img=np.array(
            [[value['f_u'], 0, value['c_u']], [0, value['f_v'], value['c_v']], [0, 0, 1.0]]
        ),
        lidar2cam=_AXES @ invert(cam2vehicle) @ vehicle2vehicle,
        distortion=dict(model='brown', coefficients=lens) if any(lens) else None,
    )


def range_image_points(
    image: np.ndarray,
    beams: Mapping[str, Any],
    pixel_poses: np.ndarray | None,
    world: np.ndarray,
) -> np.ndarray:
    """Points of a range image in the vehicle's frame at the frame's time.

    Args:
        image: (H, W, >= 2) range in metres (not positive: no return) and intensity.
        beams: Row of the LiDAR calibration: extrinsic, and inclinations from the lowest beam up.
        pixel_poses: (H, W, 6) roll, pitch, yaw and position of the vehicle in the world when each
            pixel was taken, or None for a still vehicle.
        world: (4, 4) pose of the vehicle at the frame's time.

    Returns:
        (M, 4) float32 x, y, z, intensity.
    """
    height, width = image.shape[:2]
    extrinsic = _matrix(beams[f'{_BEAMS}.extrinsic.transform'])
    inclination = beams.get(f'{_BEAMS}.beam_inclination.values')
    if not inclination:
        low, high = (beams[f'{_BEAMS}.beam_inclination.{end}'] for end in ('min', 'max'))
        inclination = low + (np.arange(height) + 0.5) / height * (high - low)
    inclination = np.asarray(inclination)[::-1, None]  # the top row is the highest beam
    turn = np.arctan2(extrinsic[1, 0], extrinsic[0, 0])
    azimuth = (2 * (width - np.arange(width) - 0.5) / width - 1) * np.pi - turn
    directions = np.stack(
        [
            np.cos(azimuth) * np.cos(inclination),
            np.sin(azimuth) * np.cos(inclination),
            np.broadcast_to(np.sin(inclination), (height, width)),
        ],
        axis=-1,
    )
    hit = image[..., 0] > 0
    points = transform_points(directions[hit] * image[hit][:, :1].astype(np.float64), extrinsic)
    if pixel_poses is not None:
        poses = pixel_poses[hit].astype(np.float64)
        turns = Rotation.from_euler('xyz', poses[:, :3])  # roll, then pitch, then yaw
        points = transform_points(turns.apply(points) + poses[:, 3:], invert(world))
    return np.c_[points, image[hit][:, 1]].astype(np.float32)


def _matrix(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(4, 4)
