"""Your own logs: images by camera, sweeps, one calibration file; docs/data.md has the schema."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep
from s3pt_mm.data.formats.points import READERS, read_points
from s3pt_mm.data.geometry import invert, rigid

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.avif', '.bmp', '.tif', '.tiff')


class Folder(LogFormat):
    """Files found by templates, calibrated by a YAML or JSON file.

    ``{camera}`` and ``{instant}`` stand for one path component, ``{sequence}`` for any number of
    folders. What the calibration does not say (poses, LiDAR, lens) is not needed.
    """

    help = 'any folder of images by camera, with sweeps and a calibration file if you have them'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """See the base class."""
        parser.add_argument(
            '--calibration',
            type=Path,
            help='YAML or JSON; default: calibration.yaml or .json in the folder, if there is one',
        )
        parser.add_argument(
            '--images',
            default='images/{camera}/{instant}',
            help='where the images lie, without ending (default: %(default)s)',
        )
        parser.add_argument(
            '--lidar',
            default='lidar/{instant}',
            help='where the sweeps lie, without ending (default: %(default)s)',
        )

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        calibration = self._calibration()
        images = self._find(self.options.images, IMAGE_SUFFIXES)
        if not images:
            raise DataError(
                self.root,
                f'no image matches --images {self.options.images!r}',
                'Say where they lie, e.g. --images "{sequence}/{camera}/{instant}"; '
                f'endings: {" ".join(IMAGE_SUFFIXES)}',
            )
        sweeps = {
            (key['sequence'], key['instant']): path
            for key, path in self._find(self.options.lidar, tuple(READERS))
        }
        instants: dict[tuple[str, str], dict[str, Path]] = {}
        for key, path in images:
            cameras = instants.setdefault((key['sequence'], key['instant']), {})
            cameras[key['camera']] = path
        known = set(calibration.get('cameras', {}))
        for camera in sorted({name for cameras in instants.values() for name in cameras}):
            if known and camera not in known:
                raise DataError(
                    self.options.calibration,
                    f'camera {camera!r} has images, and cameras lists only {sorted(known)}',
                    'Add it, or leave its images out with another --images template',
                )
        for (sequence, instant), cameras in sorted(instants.items()):
            yield self._sample(calibration, sequence, instant, cameras, sweeps)

    def _sample(
        self,
        calibration: Mapping[str, Any],
        sequence: str,
        instant: str,
        cameras: Mapping[str, Path],
        sweeps: Mapping[tuple[str, str], Path],
    ) -> Sample:
        lidar = calibration.get('lidar', {})
        path = sweeps.get((sequence, instant))
        images = {
            name: self._image(calibration, sequence, instant, name, image)
            for name, image in sorted(cameras.items())
        }
        num_features = int(lidar.get('num_features', 4))
        sweep = None
        if path is not None and any(image.lidar2cam is not None for image in images.values()):
            if path.suffix == '.bin':
                sweep = Sweep(path, num_features)
            else:
                sweep = Sweep(points=lambda: read_points(path, num_features))
        return Sample(
            token='_'.join(part for part in (sequence.replace('/', '_'), instant) if part),
            sequence=sequence or self.root.name,
            images=images,
            sweep=sweep,
            ego2global=self._pose(calibration, 'lidar_to_world', None, sequence, instant),
        )

    def _image(
        self, calibration: Mapping[str, Any], sequence: str, instant: str, name: str, path: Path
    ) -> CameraImage:
        camera = calibration.get('cameras', {}).get(name, {})
        size = camera.get('image_size', calibration.get('image_size'))
        try:
            if size is not None:
                width, height = map(int, size)
                size = width, height
            return CameraImage(
                path,
                size=size,
                cam2img=_intrinsics(camera),
                lidar2cam=self._lidar2cam(calibration, camera, sequence, instant, name),
                distortion=camera.get('distortion'),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                self.options.calibration,
                f'camera {name!r} at {instant!r}: {type(error).__name__}: {error}',
                'See the schema in docs/data.md',
            ) from error

    def _lidar2cam(
        self,
        calibration: Mapping[str, Any],
        camera: Mapping[str, Any],
        sequence: str,
        instant: str,
        name: str,
    ) -> np.ndarray | None:
        """LiDAR at its sweep -> camera at its exposure, from whatever the file states."""
        in_world = self._pose(calibration, 'camera_to_world', name, sequence, instant)
        sweep_in_world = self._pose(calibration, 'lidar_to_world', None, sequence, instant)
        if in_world is not None and sweep_in_world is not None:
            return invert(in_world) @ sweep_in_world
        if 'lidar_to_camera' in camera:
            return transform(camera['lidar_to_camera'])
        lidar = calibration.get('lidar', {})
        if 'to_ego' in camera and 'to_ego' in lidar:
            return invert(transform(camera['to_ego'])) @ transform(lidar['to_ego'])
        return None

    @staticmethod
    def _pose(
        calibration: Mapping[str, Any], field: str, name: str | None, sequence: str, instant: str
    ) -> np.ndarray | None:
        poses = calibration.get(field)
        if poses is None:
            return None
        poses = poses[name] if name is not None else poses
        for key in (f'{sequence}/{instant}', instant):
            if key in poses:
                return transform(poses[key])
        raise KeyError(f'{field} has no pose of instant {instant!r}')

    def _find(self, template: str, suffixes: tuple[str, ...]) -> list[tuple[dict[str, str], Path]]:
        pattern = re.escape(template).replace(r'\{camera\}', '(?P<camera>[^/]+)')
        pattern = pattern.replace(r'\{instant\}', '(?P<instant>[^/]+)')
        pattern = re.compile(pattern.replace(r'\{sequence\}', '(?P<sequence>.+?)'))
        found = []
        for path in sorted(self.root.rglob('*')):
            relative = path.relative_to(self.root)
            if path.suffix.lower() not in suffixes or any(
                part.startswith(('.', '@')) for part in relative.parts
            ):
                continue
            match = pattern.fullmatch(relative.with_suffix('').as_posix())
            if match:
                found.append(({'sequence': '', 'camera': 'camera', **match.groupdict()}, path))
        return found

    def _calibration(self) -> Mapping[str, Any]:
        path = self.options.calibration
        if path is None:
            names = ('calibration.yaml', 'calibration.yml', 'calibration.json')
            path = next((self.root / n for n in names if (self.root / n).is_file()), None)
            if path is None:
                return {}
            self.options.calibration = path
        try:
            text = path.read_text(encoding='utf-8')
            if path.suffix == '.json':
                content = json.loads(text)
            else:
                import yaml

                content = yaml.safe_load(text)
        except OSError as error:
            raise DataError(
                path, f'cannot read it ({error.strerror})', 'Check --calibration'
            ) from error
        except ValueError as error:
            raise DataError(
                path, f'not readable: {error}', 'See the schema in docs/data.md'
            ) from error
        except Exception as error:  # yaml.YAMLError, without importing yaml for JSON
            raise DataError(path, f'not readable YAML: {error}', 'See docs/data.md') from error
        if not isinstance(content, dict):
            raise DataError(path, f'holds a {type(content).__name__}', 'See docs/data.md')
        _check(path, content)
        return content


def _intrinsics(camera: Mapping[str, Any]) -> np.ndarray | None:
    if 'matrix' in camera:
        return np.asarray(camera['matrix'], dtype=np.float64)
    if 'fx' not in camera:
        return None
    return np.array(
        [
            [camera['fx'], 0.0, camera['cx']],
            [0.0, camera['fy'], camera['cy']],
            [0.0, 0.0, 1.0],
        ]
    )


def transform(value: Any) -> np.ndarray:
    """A (4, 4) pose written as a matrix, or as ``translation`` and ``rotation`` (w, x, y, z).

    Raises:
        ValueError: Neither, or not rigid.
    """
    if isinstance(value, Mapping):
        return rigid(value['rotation'], value['translation'])
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, (0.0, 0.0, 0.0, 1.0)])
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f'a pose is 4 x 4 finite numbers, got {matrix.tolist()}')
    if not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3):
        raise ValueError(f'the rotation of a pose must be orthonormal, got {matrix.tolist()}')
    if np.linalg.det(matrix[:3, :3]) < 0:
        raise ValueError(f'the rotation of a pose mirrors (determinant -1): {matrix.tolist()}')
    return matrix


_KNOWN = {
    'file': {'image_size', 'cameras', 'lidar', 'lidar_to_world', 'camera_to_world'},
    'lidar': {'to_ego', 'num_features'},
    'camera': {'image_size', 'fx', 'fy', 'cx', 'cy', 'matrix', 'distortion', 'lidar_to_camera',
               'to_ego'},
}  # fmt: skip


def _check(path: Path, content: Mapping[str, Any]) -> None:
    """A key that nothing reads, and a camera stated by half, would leave out the LiDAR in silence.

    Raises:
        DataError: For those.
    """
    cameras = content.get('cameras', {})
    if not isinstance(cameras, Mapping):
        raise DataError(path, f'cameras holds {cameras!r}', 'Name each camera: see docs/data.md')
    parts = [('the file', content, 'file'), ('lidar', content.get('lidar', {}), 'lidar')]
    parts += [(f'camera {name!r}', part, 'camera') for name, part in cameras.items()]
    for where, part, kind in parts:
        known = _KNOWN[kind]
        if not isinstance(part, Mapping):
            raise DataError(path, f'{where} holds {part!r}, not keys', f'Known: {sorted(known)}')
        if unknown := sorted(set(map(str, part)) - known):
            raise DataError(path, f'{where} has {unknown}', f'Known: {sorted(known)}')
    lidar_placed = 'to_ego' in content.get('lidar', {}) or 'lidar_to_world' in content
    for name, part in cameras.items():
        where = f'camera {name!r}'
        if {'lidar_to_camera', 'to_ego'} & set(part) and not {'matrix', 'fx'} & set(part):
            raise DataError(
                path, f'{where} has a place, but no focal length', 'State fx, fy, cx, cy or matrix'
            )
        if 'to_ego' in part and 'lidar_to_camera' not in part and not lidar_placed:
            raise DataError(
                path, f'{where} has to_ego, the LiDAR has not', 'State lidar: to_ego, too'
            )
