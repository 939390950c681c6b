"""Info file -> one item per camera image. Opens no pixel."""

from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from mmpretrain.registry import DATASETS

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset, as_matrix

CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
DATA_PREFIX = dict(
    pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP', **{cam: f'samples/{cam}' for cam in CAMERAS}
)


@DATASETS.register_module()
class NuScenesImages(PretrainDataset):
    """Camera images of an info file in mmdet3d's v2 format, with their LiDAR sweep.

    An item has ``img_path`` (absolute or relative to the working directory, as ``data_root`` is),
    ``cam2img`` (3, 3), ``lidar_points = dict(lidar_path, lidar2cam (4, 4) with both ego poses in
    it, num_pts_feats)``, ``token``, ``cam``, ``sample_idx``. Without LiDAR, ``lidar_points`` is
    absent.

    Args:
        ann_file: info file, relative to ``data_root`` or absolute.
        data_root: folder of the data.
        data_prefix: where bare file names lie, as in mmdet3d's ``NuScenesDataset``: one entry a
            camera (else ``img``), ``pts`` for LiDAR. Default: nuScenes' own folders.
        cameras: names of the cameras to use; default all that the info file has.
        image_sweeps: also the images between key frames; the info file must have been written with
            them.
        with_lidar: False leaves ``lidar_points`` out.
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
        **kwargs: Any,
    ) -> None:
        self.cameras = None if cameras is None else tuple(cameras)
        self.image_sweeps = image_sweeps
        self.with_lidar = with_lidar
        super().__init__(
            ann_file=osp.expanduser(ann_file),
            data_root=osp.expanduser(data_root),
            data_prefix=dict(DATA_PREFIX if data_prefix is None else data_prefix),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Items of the data set, paths and numbers only."""
        infos = load_info_file(self.ann_file)
        for key, value in infos['metainfo'].items():
            self._metainfo.setdefault(key, value)
        if (
            self.image_sweeps
            and infos['data_list']
            and not any('image_sweeps' in info for info in infos['data_list'])
        ):
            raise DataError(
                self.ann_file,
                'image_sweeps=True, but the file has none',
                'Write it with tools/create_data.py nuscenes --image-sweeps',
            )
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

    def _items(self, info: dict[str, Any]) -> Iterator[dict[str, Any]]:
        sweep_of_key = self._sweep(info, self.data_prefix.get('pts', self.data_root))
        for cam, image in info['images'].items():
            prefix = self.data_prefix.get(cam, self.data_prefix.get('img', self.data_root))
            if self.cameras is None or cam in self.cameras:
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
        return {
            'lidar_path': osp.join(prefix, lidar['lidar_path']),
            'num_pts_feats': int(lidar.get('num_pts_feats', 5)),
        }

    @staticmethod
    def _item(
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
        }
        if image.get('width') and image.get('height'):
            item['ori_size'] = (image['width'], image['height'])
        if image.get('cam2img') is not None:
            item['cam2img'] = image['cam2img']
        if sweep and image.get('lidar2cam') is not None:
            item['lidar_points'] = {**sweep, 'lidar2cam': image['lidar2cam']}
        return item

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """One item, with what its pipeline needs."""
        item = super().get_data_info(idx)
        path = item['img_path']
        if 'cam2img' in item:
            item['cam2img'] = as_matrix(item['cam2img'], (3, 3), path=path, name='cam2img')
        if 'lidar_points' in item:
            points = item['lidar_points']
            if 'cam2img' not in item:
                raise DataError(
                    path,
                    'the info file gives LiDAR but no cam2img',
                    'Add cam2img, or with_lidar=False',
                )
            points['lidar2cam'] = as_matrix(
                points['lidar2cam'], (4, 4), path=path, name='lidar2cam'
            )
        return item
