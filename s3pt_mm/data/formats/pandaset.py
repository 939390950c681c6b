"""PandaSet (Hesai and Scale AI): ``<sequence>/camera/<name>``, ``<sequence>/lidar``."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep
from s3pt_mm.data.formats.folder import Folder
from s3pt_mm.data.formats.frames import read_frame
from s3pt_mm.data.geometry import invert, rigid, transform_points

_ROTATING = 0  # column d: 0 the rotating Pandar64, 1 the forward-looking PandarGT


class PandaSet(LogFormat):
    """Sequences as published; a folder with one ``calibration.json`` is read by :class:`Folder`.

    Published sweeps lie in the world's frame; they are carried back into the LiDAR's own, with the
    pose of the sweep, so that every camera is reached through both poses.
    """

    help = 'PandaSet: the folder of sequences, or one sequence'

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        if (self.root / 'calibration.json').is_file():
            options = argparse.Namespace(
                calibration=None, images='images/{camera}/{instant}', lidar='lidar/{instant}'
            )
            yield from Folder(self.root, options).samples()
            return
        found = (path.parent for path in self.root.rglob('camera') if path.is_dir())
        what = 'sequence with a camera folder and no calibration.json'
        for sequence in self.some(found, what, 'Give the folder that holds 001, 002, ...'):
            yield from self._sequence(sequence)

    def _sequence(self, sequence: Path) -> Iterator[Sample]:
        sweep_poses = _poses(sequence / 'lidar')
        times = _json(sequence / 'lidar' / 'timestamps.json')
        cameras = {
            folder.name: (_intrinsics(folder), _poses(folder))
            for folder in sorted((sequence / 'camera').iterdir())
            if folder.is_dir()
        }
        for index, lidar2world in enumerate(sweep_poses):
            images = {
                name: CameraImage(
                    sequence / 'camera' / name / f'{index:02d}.jpg',
                    cam2img=cam2img,
                    lidar2cam=invert(poses[index]) @ lidar2world,
                )
                for name, (cam2img, poses) in cameras.items()
            }
            path = sequence / 'lidar' / f'{index:02d}.pkl.gz'
            yield Sample(
                token=f'{sequence.name}_{index:02d}',
                sequence=sequence.name,
                images=images,
                sweep=Sweep(points=lambda path=path, pose=lidar2world: read_sweep(path, pose)),
                timestamp=float(times[index]),
                ego2global=lidar2world,
            )


def read_sweep(path: Path, lidar2world: np.ndarray) -> np.ndarray:
    """(M, 4) float32 x, y, z, intensity of the rotating LiDAR, in its own frame.

    Raises:
        DataError: The file is missing, torn, or asks for anything but a table of numbers.
    """
    try:
        with gzip.open(path) as file:
            columns = read_frame(file, path)
    except OSError as error:
        raise DataError(path, f'cannot read the sweep ({error})', 'Download it again') from error
    missing = [name for name in ('x', 'y', 'z', 'i', 'd') if name not in columns]
    if missing:
        raise DataError(path, f'no column {missing}, found {sorted(columns)}', 'Download it again')
    points = np.stack([columns[name].astype(np.float64) for name in 'xyzi'], axis=1)
    points = points[columns['d'] == _ROTATING]
    points[:, :3] = transform_points(points[:, :3], invert(lidar2world))
    return points.astype(np.float32)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(path, f'cannot read it ({error})', 'Download it again') from error


def _poses(folder: Path) -> list[np.ndarray]:
    return [
        rigid(
            [pose['heading'][axis] for axis in 'wxyz'], [pose['position'][axis] for axis in 'xyz']
        )
        for pose in _json(folder / 'poses.json')
    ]


def _intrinsics(folder: Path) -> np.ndarray:
    values = _json(folder / 'intrinsics.json')
    return np.array([[values['fx'], 0, values['cx']], [0, values['fy'], values['cy']], [0, 0, 1.0]])
