"""Argoverse 2 sensor data (Wilson et al., NeurIPS 2021): logs of feather tables and JPEGs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep
from s3pt_mm.data.formats.tables import read_columns, read_table
from s3pt_mm.data.geometry import invert, rigid

MAX_APART = 50e-3  # seconds between a sweep and the image that is paired with it


class Argoverse2(LogFormat):
    """``<log>/{calibration,sensors,city_SE3_egovehicle.feather}``; the folder of logs, or one log.

    Images are paired with the sweep nearest in time and reached through both poses. The two
    LiDARs' returns are published in one cloud in the vehicle's frame, which serves as the LiDAR's.
    The published images are treated as rectified, as av2-api's pinhole does.
    """

    help = 'Argoverse 2 sensor data: the folder of logs, or one log'

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        logs = [path.parents[1] for path in self.root.rglob('sensors/lidar')]
        logs = logs or [path.parents[1] for path in self.root.rglob('sensors/cameras')]
        for log in self.some(logs, 'log with a sensors folder', 'Give the folder of logs'):
            yield from self._log(log)

    def _log(self, log: Path) -> Iterator[Sample]:
        calibration = log / 'calibration'
        cam2img = {
            row['sensor_name']: np.array(
                [[row['fx_px'], 0, row['cx_px']], [0, row['fy_px'], row['cy_px']], [0, 0, 1.0]]
            )
            for row in read_table(calibration / 'intrinsics.feather')
        }
        cam2ego = {
            row['sensor_name']: pose(row)
            for row in read_table(calibration / 'egovehicle_SE3_sensor.feather')
        }
        poses = {
            row['timestamp_ns']: row for row in read_table(log / 'city_SE3_egovehicle.feather')
        }
        images = {
            folder.name: _by_time(folder, '.jpg')
            for folder in sorted((log / 'sensors' / 'cameras').iterdir())
            if folder.name in cam2img
        }
        sweeps = _by_time(log / 'sensors' / 'lidar', '.feather')
        for time, path in sweeps.items():
            lidar2city = self._pose(log, poses, time)
            cameras = {}
            for name, by_time in images.items():
                near = _nearest(list(by_time), time)
                if near is None:
                    continue
                camera2city = self._pose(log, poses, near) @ cam2ego[name]
                cameras[name] = CameraImage(
                    by_time[near],
                    cam2img=cam2img[name],
                    lidar2cam=invert(camera2city) @ lidar2city,
                )
            if cameras:
                yield Sample(
                    token=f'{log.name}_{time}',
                    sequence=log.name,
                    images=cameras,
                    sweep=Sweep(points=lambda path=path: read_sweep(path)),
                    timestamp=time * 1e-9,
                    ego2global=lidar2city,
                )

    @staticmethod
    def _pose(log: Path, poses: Mapping[int, Mapping[str, float]], time: int) -> np.ndarray:
        if time not in poses:
            raise DataError(
                log / 'city_SE3_egovehicle.feather',
                f'no pose at {time} ns, which a file of the log is named after',
                'Download the log again',
            )
        return pose(poses[time])


def pose(row: Mapping[str, float]) -> np.ndarray:
    """(4, 4) of a row with qw, qx, qy, qz, tx_m, ty_m, tz_m."""
    return rigid([row[f'q{axis}'] for axis in 'wxyz'], [row[f't{axis}_m'] for axis in 'xyz'])


def read_sweep(path: Path) -> np.ndarray:
    """(M, 4) float32 x, y, z, intensity in the vehicle's frame."""
    return read_columns(path, ('x', 'y', 'z', 'intensity'))


def _by_time(folder: Path, suffix: str) -> dict[int, Path]:
    """Files by the nanoseconds that they are named after, in order."""
    if not folder.is_dir():
        return {}
    paths = [path for path in folder.iterdir() if path.suffix == suffix and path.stem.isdigit()]
    return {int(path.stem): path for path in sorted(paths, key=lambda path: int(path.stem))}


def _nearest(times: list[int], time: int) -> int | None:
    at = bisect_left(times, time)
    near = min(times[max(at - 1, 0) : at + 1], key=lambda t: abs(t - time), default=None)
    return near if near is not None and abs(near - time) <= MAX_APART * 1e9 else None
