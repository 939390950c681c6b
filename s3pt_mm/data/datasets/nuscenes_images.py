"""Info file -> one item per camera image. Opens no pixel."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from mmpretrain.registry import DATASETS

from s3pt_mm.common.errors import DataError, fields_of
from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset, as_matrix
from s3pt_mm.data.geometry import (
    cam_to_image,
    check_lens,
    fold_projection,
    invert,
    transform_points,
)

CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
"""Order of mmdet3d's nuScenes info files, in which the published PETR checkpoint was trained."""

DATA_PREFIX = dict(
    pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP', **{cam: f'samples/{cam}' for cam in CAMERAS}
)
#: Where bare file names lie when the config does not say, by ``metainfo.dataset`` of the file.
DATA_PREFIXES = {
    'nuscenes': DATA_PREFIX,
    'kitti': dict(pts='training/velodyne', **{f'CAM{n}': f'training/image_{n}' for n in range(4)}),
    'waymo': dict(
        pts='training/velodyne',
        **{
            f'CAM_{name}': f'training/image_{n}'
            for n, name in enumerate(
                ('FRONT', 'FRONT_LEFT', 'FRONT_RIGHT', 'SIDE_LEFT', 'SIDE_RIGHT')
            )
        },
    ),
}
_CALIBRATION = 'Correct the calibration in the info file'
_PIXELS_APART = 1.0


def prefixes_of(metainfo: dict[str, Any]) -> dict[str, str]:
    """Where bare file names of an info file lie below its root, by camera, ``pts`` for LiDAR."""
    meta = {key.lower(): value for key, value in metainfo.items()}
    dataset = '' if 'converter' in meta else str(meta.get('dataset', 'nuscenes')).lower()
    return DATA_PREFIXES.get(dataset, {})


@DATASETS.register_module()
class NuScenesImages(PretrainDataset):
    """Camera images of an info file in mmdet3d's v2 format, with their LiDAR sweep.

    An item has ``img_path`` (absolute or relative to the working directory, as ``data_root`` is),
    ``cam2img`` (3, 3), ``lidar_points = dict(lidar_path, lidar2cam (4, 4) with both ego poses in
    it, num_pts_feats)``, ``token``, ``cam``, ``sample_idx``. Without LiDAR, ``lidar_points`` is
    absent. An image with a ``depth_map`` in the info file has its path.

    Args:
        ann_file: info file, relative to ``data_root`` or absolute.
        data_root: folder of the data.
        data_prefix: where bare file names lie, as in mmdet3d's ``NuScenesDataset``: one entry a
            camera (else ``img``), ``pts`` for LiDAR, ``depth`` for depth maps (else
            ``data_root``). Default: the folders of the data set that the info file names
            (nuScenes, KITTI, Waymo), else ``data_root`` itself.
        cameras: names of the cameras to use; default all that the info file has.
        image_sweeps: also the images between key frames; the info file must have been written with
            them.
        with_lidar: False leaves ``lidar_points`` out.
        lidar_sweeps: list up to so many earlier sweeps as ``lidar_points['sweeps']``, for
            ``LoadLidar(sweeps=...)``. Their paths start at ``data_root``.
        **kwargs: see :class:`PretrainDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset_type': 'nuscenes_images'}

    def __init__(
        self,
        *,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict[str, str] | None = None,
        cameras: Sequence[str] | None = None,
        image_sweeps: bool = False,
        with_lidar: bool = True,
        lidar_sweeps: int = 0,
        **kwargs: Any,
    ) -> None:
        self.cameras = None if cameras is None else tuple(cameras)
        self.image_sweeps = image_sweeps
        self.with_lidar = with_lidar
        self._prefix_of_file = data_prefix is None
        self.lidar_sweeps = lidar_sweeps
        super().__init__(
            ann_file=osp.expanduser(ann_file),
            data_root=osp.expanduser(data_root),
            data_prefix=dict(data_prefix or {}),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Items of the data set, paths and numbers only."""
        unused = {'instances', 'cam2ego'}
        unused |= set() if self.image_sweeps else {'image_sweeps'}
        unused |= set() if self.lidar_sweeps else {'lidar_sweeps'}
        infos = load_info_file(self.ann_file, without=unused)
        for key, value in infos['metainfo'].items():
            self._metainfo.setdefault(key, value)
        if self._prefix_of_file:
            self.data_prefix = {
                name: osp.join(self.data_root, folder)
                for name, folder in prefixes_of(infos['metainfo']).items()
            }
        if (
            self.image_sweeps
            and infos['data_list']
            and not any('image_sweeps' in info for info in infos['data_list'])
        ):
            raise DataError(
                self.ann_file,
                'image_sweeps=True, but the file has none',
                'Write it with s3pt-data nuscenes --image-sweeps',
            )
        self._check_shards(infos['metainfo'].get('shards', {}))
        samples, data_list = infos['data_list'], []
        for index in range(len(samples)):
            # Let go of each sample once its images are listed: large files are gigabytes.
            info, samples[index] = samples[index], None
            try:
                data_list.extend(self._items(info))
            except (KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    self.ann_file,
                    f'sample {index} ({info.get("token") if isinstance(info, dict) else info!r})'
                    f' lacks or garbles a field: {type(error).__name__}: {error}',
                    'See docs/data.md for the fields that an info file needs',
                ) from error
        return data_list

    def _check_shards(self, sizes: dict[str, int]) -> None:
        """See that the tar files of an info file have the sizes that they were written with."""
        for name, size in sizes.items():
            path = osp.join(self.data_root, name)
            found = osp.getsize(path) if osp.isfile(path) else None
            if found != size:
                problem = 'no such shard' if found is None else f'{found} bytes, not {size}'
                raise DataError(
                    path, problem, 'Copy the shard again, or set data_root to the folder of shards'
                )

    def _items(self, info: dict[str, Any]) -> Iterator[dict[str, Any]]:
        sweep_of_key = self._sweep(info, self.data_prefix.get('pts', self.data_root))
        for cam, image in info['images'].items():
            prefix = self.data_prefix.get(cam, self.data_prefix.get('img', self.data_root))
            # KITTI's info files list calibrations (R0_rect, cameras without an image) too.
            is_image = isinstance(image, dict) and 'img_path' in image
            if cam in self.cameras if self.cameras is not None else is_image:
                yield self._item(info, cam, image, prefix, sweep_of_key)
        for entry in info.get('image_sweeps', ()) if self.image_sweeps else ():
            # Their paths start at the root: key frames and sweeps lie in different folders.
            for cam, image in entry['images'].items():
                if self.cameras is None or cam in self.cameras:
                    yield self._item(
                        info, cam, image, self.data_root, self._sweep(entry, self.data_root)
                    )

    def _sweep(self, entry: dict[str, Any], prefix: str) -> dict[str, Any] | None:
        """Path and format of the LiDAR sweep of a key frame or image sweep, if it has one."""
        lidar = entry.get('lidar_points') if self.with_lidar else None
        if not lidar or not lidar.get('lidar_path'):
            return None
        found = self._file(prefix, lidar)
        earlier = [sweep['lidar_points'] for sweep in entry.get('lidar_sweeps', ())]
        if self.lidar_sweeps and earlier:
            found['sweeps'] = [
                {**self._file(self.data_root, sweep), 'lidar2sensor': sweep['lidar2sensor']}
                for sweep in earlier[: self.lidar_sweeps]
            ]
        return found

    @staticmethod
    def _file(prefix: str, lidar: dict[str, Any]) -> dict[str, Any]:
        found = {
            'lidar_path': osp.join(prefix, lidar['lidar_path']),
            'num_pts_feats': int(lidar.get('num_pts_feats', 5)),
        }
        return found | _spans(lidar)

    def _item(
        self,
        info: dict[str, Any],
        cam: str,
        image: dict[str, Any],
        prefix: str,
        sweep: dict[str, Any] | None,
    ) -> dict[str, Any]:
        item = {
            'img_path': osp.join(prefix, image['img_path']),
            'token': info.get('token', ''),
            'cam': cam,
            **_spans(image),
        }
        if image.get('width') and image.get('height'):
            item['ori_size'] = (image['width'], image['height'])
        item.update(
            {
                key: image[key]
                for key in ('cam2img', 'distortion', 'upright')
                if image.get(key) is not None
            }
        )
        if image.get('depth_map'):
            folder = self.data_prefix.get('depth', self.data_root)
            item['depth_map'] = osp.join(folder, image['depth_map'])
        if sweep and image.get('lidar2cam') is not None:
            item['lidar_points'] = {**sweep, 'lidar2cam': image['lidar2cam']}
            if image.get('lidar2img') is not None:
                item['lidar_points']['lidar2img'] = image['lidar2img']
        return item

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """One item, with what its pipeline needs."""
        item = super().get_data_info(idx)
        with fields_of(item['img_path'], _CALIBRATION):
            return self._calibrated(item)

    def _calibrated(self, item: dict[str, Any]) -> dict[str, Any]:
        path, shift = item['img_path'], np.eye(4)
        try:
            if 'cam2img' in item:
                item['cam2img'], shift = fold_projection(item['cam2img'])
            if 'distortion' in item:
                check_lens(item['distortion'])
        except ValueError as error:
            raise DataError(path, str(error), _CALIBRATION) from error
        if 'lidar_points' in item:
            points = item['lidar_points']
            if 'cam2img' not in item:
                raise DataError(
                    path,
                    'the info file gives LiDAR but no cam2img',
                    'Add cam2img, or with_lidar=False',
                )
            lidar2cam = as_matrix(points['lidar2cam'], (4, 4), path=path, name='lidar2cam')
            points['lidar2cam'] = shift @ lidar2cam
            _compare_projections(item, points.pop('lidar2img', None))
        return item


def _spans(entry: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Where the bytes of an entry lie in its files, if these are tar shards."""
    names = ('img_span', 'depth_span', 'span')
    return {name: tuple(entry[name]) for name in names if entry.get(name) is not None}


def _compare_projections(item: dict[str, Any], stated: Any) -> None:
    """Refuse a ``lidar2img`` that says something else than ``cam2img`` and ``lidar2cam``.

    Compared are the pixels of points in front of the camera, 10 and 50 m away: matrices alone
    differ by rounding and scale.
    """
    if stated is None:
        return
    path, lidar2cam = item['img_path'], item['lidar_points']['lidar2cam']
    matrix = np.asarray(stated, dtype=np.float64)
    if matrix.shape not in ((3, 4), (4, 4)) or not np.isfinite(matrix).all():
        raise DataError(
            path, f'lidar2img must be 4 x 4 finite numbers, got {matrix.tolist()}', _CALIBRATION
        )
    ahead = np.array(
        [(x * z, y * z, z) for z in (10, 50) for x in (-0.3, 0.3) for y in (-0.2, 0.2)]
    )
    points = transform_points(ahead, invert(lidar2cam))
    homogeneous = np.c_[points, np.ones(len(points))] @ matrix[:3].T
    with np.errstate(divide='ignore', invalid='ignore'):
        off = homogeneous[:, :2] / homogeneous[:, 2:] - cam_to_image(ahead, item['cam2img'])
    worst = np.abs(off).max()
    if not worst < _PIXELS_APART:
        raise DataError(
            path,
            f'lidar2img of the info file lies {worst:.1f} pixels from cam2img @ lidar2cam',
            'One of the three is wrong; s3pt-look-at-data draws what they give',
        )
