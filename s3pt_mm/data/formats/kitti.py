"""KITTI: raw drives and the object benchmark (Geiger et al., CVPR 2012)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep

_IMAGES = ('.png', '.jpg')


def read_calibration(path: Path) -> dict[str, np.ndarray]:
    """Numbers by name of a KITTI calibration file; entries that are no numbers are left out.

    Raises:
        DataError: The file is missing.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except OSError as error:
        raise DataError(
            path, f'cannot read the calibration ({error.strerror})', 'It comes with the images'
        ) from error
    values = {}
    for line in lines:
        name, _, numbers = line.partition(':')
        try:
            values[name.strip()] = np.array([float(number) for number in numbers.split()])
        except ValueError:
            continue  # calib_time
    return values


def matrix(values: dict[str, np.ndarray], name: str, shape: tuple[int, int], path: Path):
    """A named calibration entry as a matrix.

    Raises:
        DataError: The entry is missing or of another length.
    """
    if name not in values or values[name].size != shape[0] * shape[1]:
        found = values[name].size if name in values else 'no'
        raise DataError(
            path, f'{name} has {found} numbers, not {shape[0] * shape[1]}', 'Download it again'
        )
    return values[name].reshape(shape)


def affine(rotation: np.ndarray, translation: np.ndarray | None = None) -> np.ndarray:
    """(4, 4) of a rotation (3, 3) and a translation (3,)."""
    transform = np.eye(4)
    transform[:3, :3] = rotation
    if translation is not None:
        transform[:3, 3] = translation.ravel()
    return transform


class KittiRaw(LogFormat):
    """``<date>/<date>_drive_<number>_sync``, rectified images, with the date's calibration files.

    Colour cameras image_02 and image_03. KITTI's LiDAR triggers the cameras, so one calibration
    serves every instant.
    """

    help = 'KITTI raw drives (synced and rectified): the folder that holds the dates, or one date'

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        found = (path.parent for path in self.root.rglob('image_02') if path.is_dir())
        for drive in self.some(found, 'drive with image_02', 'Give the folder above the dates'):
            yield from self._drive(drive)

    def _drive(self, drive: Path) -> Iterator[Sample]:
        cameras = self._cameras(drive.parent)
        for path in sorted((drive / 'image_02' / 'data').iterdir()):
            if path.suffix not in _IMAGES:
                continue
            sweep = drive / 'velodyne_points' / 'data' / f'{path.stem}.bin'
            yield Sample(
                token=f'{drive.name}_{path.stem}',
                sequence=drive.name,
                images={
                    name: CameraImage(
                        drive / name / 'data' / path.name, cam2img=cam2img, lidar2cam=lidar2cam
                    )
                    for name, (cam2img, lidar2cam) in cameras.items()
                    if (drive / name / 'data' / path.name).is_file()
                },
                # A few sweeps are missing in the published drives.
                sweep=Sweep(sweep) if sweep.is_file() else None,
            )

    def _cameras(self, date: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        camera_file, lidar_file = date / 'calib_cam_to_cam.txt', date / 'calib_velo_to_cam.txt'
        camera, lidar = read_calibration(camera_file), read_calibration(lidar_file)
        to_reference = affine(
            matrix(lidar, 'R', (3, 3), lidar_file), matrix(lidar, 'T', (3, 1), lidar_file)
        )
        rectify = affine(matrix(camera, 'R_rect_00', (3, 3), camera_file))
        return {
            f'image_{n}': (
                matrix(camera, f'P_rect_{n}', (3, 4), camera_file),
                rectify @ to_reference,
            )
            for n in ('02', '03')
        }


class KittiObject(LogFormat):
    """``training/{image_2,velodyne,calib}`` of the object benchmark; ``testing`` too."""

    help = 'KITTI object benchmark: the folder with training/ and testing/, or one of them'

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        own = (self.root / 'image_2').is_dir()
        found = [self.root] if own else [path.parent for path in self.root.glob('*/image_2')]
        for split in self.some(found, 'image_2 folder', 'Give the folder above training/'):
            for path in sorted((split / 'image_2').iterdir()):
                if path.suffix in _IMAGES:
                    yield self._sample(split, path)

    def _sample(self, split: Path, path: Path) -> Sample:
        calibration = split / 'calib' / f'{path.stem}.txt'
        values = read_calibration(calibration)
        to_reference = np.eye(4)
        to_reference[:3] = matrix(values, 'Tr_velo_to_cam', (3, 4), calibration)
        rectify = affine(matrix(values, 'R0_rect', (3, 3), calibration))
        images = {
            folder: CameraImage(
                split / folder / path.name,
                cam2img=matrix(values, entry, (3, 4), calibration),
                lidar2cam=rectify @ to_reference,
            )
            for folder, entry in (('image_2', 'P2'), ('image_3', 'P3'))
            if (split / folder / path.name).is_file()
        }
        sweep = split / 'velodyne' / f'{path.stem}.bin'
        return Sample(
            token=f'{split.name}_{path.stem}',
            sequence=split.name,
            images=images,
            sweep=Sweep(sweep) if sweep.is_file() else None,
        )
