"""nuScenes' tables -> info files in mmdet3d's v2 format (``s3pt-data nuscenes``).

One file serves pre-training and detection. The fields are those of mmdetection3d 1.4's converter;
added are each camera's ``ego2global`` at its own exposure, ``height``, ``width``, ``lidar2img``,
and, on request, ``image_sweeps``. docs/data.md has the schema.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3pt_mm.common.workers import usable_cpus
from s3pt_mm.data.geometry import invert, lidar_to_camera, rigid
from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import inside
from s3pt_mm.data.datasets.info_file import write_info_file
from s3pt_mm.data.datasets.nuscenes_images import CAMERAS

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

CLASSES = (
    'car',
    'truck',
    'trailer',
    'bus',
    'construction_vehicle',
    'bicycle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'barrier',
)
LIDAR = 'LIDAR_TOP'
SPLITS = {
    'v1.0-mini': {'train': 'mini_train', 'val': 'mini_val'},
    'v1.0-trainval': {'train': 'train', 'val': 'val'},
    'v1.0-test': {'test': 'test'},
}
NUM_PTS_FEATS = 5  # x, y, z, intensity, ring


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

    def build(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Info of a key frame; ``sample_idx`` is left to the caller.

        Raises:
            DataError: if a file that the tables name is absent, or a table refers to nothing.
        """
        try:
            return self._build(sample)
        except KeyError as error:
            raise DataError(
                Path(self.nusc.dataroot) / self.nusc.version,
                f'sample {sample["token"]} refers to {error}, which the tables do not have',
                'Download the metadata again',
            ) from error

    def _build(self, sample: dict[str, Any]) -> dict[str, Any]:
        get = self.nusc.get
        lidar = get('sample_data', sample['data'][LIDAR])
        lidar2ego, ego2global = self._extrinsics(lidar), self._pose(lidar)
        return {
            'token': sample['token'],
            'timestamp': sample['timestamp'] / 1e6,
            'ego2global': ego2global.tolist(),
            'images': {
                cam: self._image(get('sample_data', sample['data'][cam]), lidar, key_frame=True)
                for cam in CAMERAS
                if cam in sample['data']
            },
            'lidar_points': {
                'num_pts_feats': NUM_PTS_FEATS,
                'lidar_path': self._file(lidar).name,
                'lidar2ego': lidar2ego.tolist(),
            },
            'lidar_sweeps': self._lidar_sweeps(lidar),
            'instances': self._instances(sample, invert(ego2global @ lidar2ego)),
        }

    def _file(self, record: dict[str, Any]) -> Path:
        """Path of a sample_data record relative to the root, after checking that it exists."""
        tables = Path(self.nusc.dataroot) / self.nusc.version / 'sample_data.json'
        path = inside(Path(), record['filename'], tables)
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
            sensor2ego = rigid(row['rotation'], row['translation'])
            # The lists are shared by all samples that share the calibration: pickle stores them
            # once.
            self._calibrations[token] = {
                'sensor2ego': sensor2ego,
                'sensor2ego_list': sensor2ego.tolist(),
                'cam2img': row['camera_intrinsic'],
            }
        return self._calibrations[token]

    def _pose(self, record: dict[str, Any]) -> np.ndarray:
        row = self.nusc.get('ego_pose', record['ego_pose_token'])
        return rigid(row['rotation'], row['translation'])

    def _image(
        self, record: dict[str, Any], lidar: dict[str, Any], *, key_frame: bool
    ) -> dict[str, Any]:
        calibration = self._calibration(record)
        ego2global = self._pose(record)
        lidar2cam = lidar_to_camera(
            lidar2ego=self._extrinsics(lidar),
            lidar_ego2global=self._pose(lidar),
            cam2ego=calibration['sensor2ego'],
            cam_ego2global=ego2global,
        )
        lidar2img = np.eye(4)
        lidar2img[:3] = np.asarray(calibration['cam2img'], dtype=np.float64) @ lidar2cam[:3]
        path = self._file(record)
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
        key2global = self._pose(key) @ self._extrinsics(key)
        record = key
        while len(sweeps) < self.max_sweeps and record['prev']:
            record = self.nusc.get('sample_data', record['prev'])
            lidar2ego, ego2global = self._extrinsics(record), self._pose(record)
            sweeps.append(
                {
                    'timestamp': record['timestamp'] / 1e6,
                    'ego2global': ego2global.tolist(),
                    'sample_data_token': record['token'],
                    'lidar_points': {
                        'num_pts_feats': NUM_PTS_FEATS,
                        'lidar_path': self._file(record).as_posix(),
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
            box2lidar = global2lidar @ rigid(row['rotation'], row['translation'])
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

    def add_image_sweeps(self, infos: dict[str, dict[str, Any]], scene: dict[str, Any]) -> None:
        """Attach the images between key frames to the infos (by sample token) of their samples."""
        first = self.nusc.get('sample', scene['first_sample_token'])
        lidars = self._chain(first['data'][LIDAR])
        times = np.array([record['timestamp'] for record in lidars])
        for info in infos.values():
            info['image_sweeps'] = []
        for cam in CAMERAS:
            if cam not in first['data']:
                continue
            for record in self._chain(first['data'][cam]):
                if record['is_key_frame'] or record['sample_token'] not in infos:
                    continue
                nearest = lidars[int(np.abs(times - record['timestamp']).argmin())]
                infos[record['sample_token']]['image_sweeps'].append(
                    {
                        'timestamp': record['timestamp'] / 1e6,
                        'ego2global': self._pose(record).tolist(),
                        'images': {cam: self._image(record, nearest, key_frame=False)},
                        'lidar_points': {
                            'num_pts_feats': NUM_PTS_FEATS,
                            'lidar_path': self._file(nearest).as_posix(),
                            'timestamp': nearest['timestamp'] / 1e6,
                        },
                    }
                )

    def _chain(self, token: str) -> list[dict[str, Any]]:
        """All records of a sensor in a scene, in time order, from any one of them."""
        record = self.nusc.get('sample_data', token)
        while record['prev']:
            record = self.nusc.get('sample_data', record['prev'])
        records = [record]
        while record['next']:
            record = self.nusc.get('sample_data', record['next'])
            records.append(record)
        return records


_BUILDER: SampleBuilder | None = None  # set before the workers fork, so that they share the tables


def _build_scene(task: tuple[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Infos of one scene and messages of failed samples; with 'raise' the first failure raises."""
    assert _BUILDER is not None
    scene_token, on_error = task
    scene = _BUILDER.nusc.get('scene', scene_token)
    infos, failures = {}, []
    token = scene['first_sample_token']
    while token:
        sample = _BUILDER.nusc.get('sample', token)
        try:
            infos[token] = _BUILDER.build(sample)
        except DataError as error:
            if on_error == 'raise':
                raise
            failures.append(str(error))
        token = sample['next']
    if _BUILDER.image_sweeps:
        _BUILDER.add_image_sweeps(infos, scene)
    return list(infos.values()), failures


def load_tables(root: str | os.PathLike[str], version: str) -> NuScenes:
    """nuscenes-devkit's tables.

    Raises:
        DataError: if the version is unknown or a table is missing or torn.
    """
    root = Path(root)
    if version not in SPLITS:
        raise DataError(root, f'unknown version {version!r}', f'Use one of {", ".join(SPLITS)}')
    if not (root / version).is_dir():
        found = (
            sorted(path.name for path in root.glob('v*') if path.is_dir())
            if root.is_dir()
            else 'no such folder'
        )
        raise DataError(
            root / version,
            f'no tables here (in the root: {found})',
            "Give --root the folder that holds samples/ and the version's folder",
        )
    from nuscenes.nuscenes import NuScenes

    try:
        return NuScenes(version=version, dataroot=str(root), verbose=False)
    except (
        Exception
    ) as error:  # the devkit lets KeyError, JSONDecodeError, FileNotFoundError, AssertionError out
        raise DataError(
            root / version,
            f'the tables cannot be loaded ({type(error).__name__}: {error})',
            'Download the metadata again',
        ) from error


def create_infos(
    *,
    root: str | os.PathLike[str],
    version: str,
    out_dir: str | os.PathLike[str],
    max_sweeps: int = 10,
    image_sweeps: bool = False,
    workers: int | None = None,
    on_error: str = 'raise',
    max_failed_share: float = 0.01,
    prefix: str = 'nuscenes',
) -> list[Path]:
    """Write one info file a split, ``<prefix>_infos_<split>.parquet``; an empty split is legal.

    Args:
        root: folder with ``samples/`` and the tables' folder.
        version: 'v1.0-mini', 'v1.0-trainval' or 'v1.0-test'.
        out_dir: where the files go.
        max_sweeps: earlier LiDAR sweeps to list for each sample (mmdetection3d's number is 10).
        image_sweeps: also list camera images between key frames.
        workers: processes; default one a core.
        on_error: 'raise', or 'skip' to leave out samples with absent files and report them.
        max_failed_share: with 'skip', fail when more than this share of the samples is left out.
        prefix: first part of the file names.

    Returns:
        The paths written.

    Raises:
        DataError: see ``load_tables`` and ``SampleBuilder.build``; nothing is written then.
    """
    global _BUILDER
    from nuscenes.utils.splits import create_splits_scenes
    from rich.progress import track

    nusc = load_tables(root, version)
    _BUILDER = SampleBuilder(nusc, max_sweeps=max_sweeps, image_sweeps=image_sweeps)
    splits = create_splits_scenes()
    by_name = {scene['name']: scene for scene in nusc.scene}
    chosen = {
        split: [by_name[name] for name in splits[devkit_split] if name in by_name]
        for split, devkit_split in SPLITS[version].items()
    }
    unknown = len(by_name) - sum(map(len, chosen.values()))
    if unknown:
        print(
            f'{unknown} of {len(by_name)} scenes belong to no split of {version} and are left out.'
        )
    scenes = [scene for part in chosen.values() for scene in part]
    tasks = [(scene['token'], on_error) for scene in scenes]
    workers = min(workers or usable_cpus(), max(1, len(tasks)))
    pool = multiprocessing.get_context('fork').Pool(workers) if workers > 1 else None
    try:
        results = pool.imap(_build_scene, tasks) if pool else map(_build_scene, tasks)
        built = dict(
            zip(
                (scene['token'] for scene in scenes),
                track(results, description='scenes', total=len(tasks)), strict=False,
            )
        )
    finally:
        if pool:
            pool.terminate()
            pool.join()
        _BUILDER = None
    failures = [message for _, messages in built.values() for message in messages]
    total = len(failures) + sum(len(infos) for infos, _ in built.values())
    for message in failures:
        print(f'left out: {message}')
    if len(failures) > max_failed_share * total:
        raise DataError(
            root,
            f'{len(failures)} of {total} samples failed, more than {max_failed_share:.2%}; '
            f'the first: {failures[0]}',
            'Complete the download, or raise --max-failed-share',
        )
    metainfo = {
        'categories': {name: index for index, name in enumerate(CLASSES)},
        'dataset': 'nuscenes',
        'version': version,
        'info_version': '1.1',
    }
    paths = []
    for split, part in chosen.items():
        infos = [info for scene in part for info in built[scene['token']][0]]
        infos = [dict(sample_idx=index, **info) for index, info in enumerate(infos)]
        paths.append(Path(out_dir) / f'{prefix}_infos_{split}.parquet')
        write_info_file(paths[-1], metainfo, infos)
        print(f'{paths[-1]}: {len(infos)} samples')
    return paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``s3pt-data nuscenes``."""
    parser.add_argument('--root', required=True, help="folder with samples/ and the tables' folder")
    parser.add_argument('--version', required=True, choices=list(SPLITS))
    parser.add_argument('--out-dir', required=True, help='where the info files go')
    parser.add_argument(
        '--max-sweeps', type=int, default=10, help='earlier LiDAR sweeps a sample (default 10)'
    )
    parser.add_argument(
        '--image-sweeps', action='store_true', help='also list the images between key frames'
    )
    parser.add_argument('--workers', type=int, default=None, help='processes (default: one a core)')
    parser.add_argument('--on-error', choices=('raise', 'skip'), default='raise')
    parser.add_argument('--max-failed-share', type=float, default=0.01)
    parser.add_argument('--prefix', default='nuscenes', help='first part of the file names')


def run(args: argparse.Namespace) -> None:
    """Entry of ``s3pt-data nuscenes``."""
    create_infos(**vars(args))
