"""Loading of the six surround images with their calibration, checked before any pixel is used."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.nuscenes_images import CAMERAS as NUSCENES_CAMERAS
from s3pt_mm.data.transforms.image import EncodedImage
from s3pt_mm.detection.data.calibration import (
    check_calibration,
    check_image_fits_calibration,
    project_matrix,
)


@TRANSFORMS.register_module()
class LoadSurroundImages(BaseTransform):
    """Loads a sample's cameras in a fixed order and forms their projection matrices.

    mmdet3d's ``LoadMultiViewImageFromFiles`` takes the cameras in whatever order the info file has
    them and pads an image of odd size to the others. PETR's multi-view embedding numbers the
    views, so another order is another input, and a padded image no longer fits its calibration.
    Here the order is part of the config, whatever the file's, and sizes are checked. Cameras of
    the file that are not listed are left out.

    Images stay BGR uint8 as mmcv decodes them; ``Det3DDataPreprocessor(bgr_to_rgb=True)`` turns
    them for backbones that want RGB.

    Required keys: ``images`` (camera -> ``img_path``, ``cam2img`` (3, 3), ``lidar2cam`` (4, 4),
    optionally ``height`` and ``width``), ``token`` for messages.

    Modified key: ``images``, reduced to the listed cameras in their order.
    Added keys: ``img`` (V images (h, w, 3)), ``img_shape``, ``ori_shape``, ``pad_shape`` (h, w),
    ``cam2img``, ``lidar2cam`` (V matrices, float64), ``lidar2img`` (V, 4, 4) float64, from LiDAR
    metres to pixels times depth, ``ori_lidar2img``, the same for the image as it lies on disk,
    ``camera_names``, ``num_views``, and ``lidar2ego`` (4, 4) where the info file has it.

    Args:
        cameras: Names in the order in which the model sees them.
        backend_args: Passed to mmengine's file client.

    Raises:
        DataError: A camera or an image file is missing; an image is broken; a calibration is not
            finite, not invertible or does not fit the image's size; the images differ in size.
    """

    def __init__(
        self, *, cameras: Sequence[str] = NUSCENES_CAMERAS, backend_args: dict | None = None
    ) -> None:
        if len(set(cameras)) != len(cameras):
            raise ValueError(f'a camera is listed twice: {list(cameras)}')
        self.cameras = tuple(cameras)
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Reorders, checks, loads; see the class."""
        sample = results.get('token', results.get('sample_idx'))
        views = self._select(results['images'], sample)
        images = []
        for camera, info in views.items():
            check_calibration(info, camera=camera, sample=sample)
            image = self._read(info['img_path'], camera, sample)
            check_image_fits_calibration(info, image.shape[:2], camera=camera, sample=sample)
            images.append(image)
        sizes = {camera: image.shape[:2] for camera, image in zip(views, images, strict=True)}
        if len(set(sizes.values())) > 1:
            raise DataError(
                views[self.cameras[0]]['img_path'],
                f'the images of sample {sample} differ in (height, width): {sizes}',
                'Bring them to one size and scale their cam2img alike',
            )

        results['images'] = views
        results['img'] = images
        results['img_shape'] = results['ori_shape'] = results['pad_shape'] = images[0].shape[:2]
        results['cam2img'] = [np.array(info['cam2img'], np.float64) for info in views.values()]
        results['lidar2cam'] = [np.array(info['lidar2cam'], np.float64) for info in views.values()]
        results['lidar2img'] = project_matrix(results['cam2img'], results['lidar2cam'])
        results['ori_lidar2img'] = results['lidar2img'].copy()
        results['camera_names'] = self.cameras
        if 'lidar2ego' in results.get('lidar_points', {}):
            results['lidar2ego'] = np.array(results['lidar_points']['lidar2ego'], np.float64)
        results['num_views'] = len(images)
        return results

    def _select(self, images: Mapping[str, dict], sample: object) -> dict[str, dict]:
        missing = [
            camera
            for camera in self.cameras
            if camera not in images or not images[camera].get('img_path')
        ]
        if missing:
            raise DataError(
                f'sample {sample}',
                f'camera {missing} is missing, the info file has {list(images)}',
                'Drop the sample from the info file, or list in `cameras` of LoadSurroundImages '
                'only cameras that exist (a model sees as many views as it was trained with)',
            )
        return {camera: images[camera] for camera in self.cameras}

    def _read(self, path: str, camera: str, sample: object) -> np.ndarray:
        try:
            data = get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise DataError(
                path,
                f'no such file ({camera}, sample {sample})',
                "Check data_root and data_prefix of the dataset's config",
            ) from error
        # As they are stored: the calibration counts these pixels, whatever EXIF says.
        try:
            image = EncodedImage(data, path).decode()
        except DataError as error:
            problem = f'{error.problem} ({camera}, sample {sample})'
            raise DataError(path, problem, error.remedy) from error
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(cameras={list(self.cameras)})'
