"""Augmentation of several camera images together with their calibration and boxes.

Both transforms draw once a sample and apply the draw to every view, as PETR does (arXiv
2203.05625, section 4.1). Pixel coordinates put the centre of the first pixel at (0.5, 0.5), so that
resizing is a plain scaling and a mirror image is x -> width - x.
"""

from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from s3pt_mm.detection.data.calibration import project_matrix


@TRANSFORMS.register_module()
class MultiViewResizeCropFlip(BaseTransform):
    """Resizes, crops and mirrors all views alike and moves ``cam2img`` and ``lidar2img`` along.

    Training draws the scale, a horizontal crop and a flip; testing takes the smallest scale that
    fills the output, a centred crop and no flip. Both keep the bottom of the image: what is cut is
    sky. Where a small scale leaves the image narrower than the output, the rest is black.

    mmdetection3d's PETR project scales the calibration by the drawn factor, although the resized
    image has whole pixels; here it is scaled by the ratio of the real sizes, per axis, which
    differs by up to a pixel at the border. At test scale 0.5 the two are equal.

    Required keys: ``img`` (list of (h, w, 3)), ``cam2img``, ``lidar2cam``.

    Modified keys: ``img``, ``img_shape``, ``pad_shape``, ``cam2img``, ``lidar2img``.
    Added keys: ``flip`` (whether the images are mirrored), ``scale_factor`` (x, y).

    Args:
        size: (height, width) of the output, pixels.
        resize_range: Scale relative to the original, drawn uniformly in training.
        bottom_crop_range: Share of the resized height cut from the bottom, drawn uniformly in
            training, its mean in testing.
        flip_prob: Probability of mirroring in training.
        training: Whether to draw at all.

    Raises:
        ValueError: A range is not ascending or not positive, or ``flip_prob`` is no probability.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        resize_range: tuple[float, float] = (0.47, 0.625),
        bottom_crop_range: tuple[float, float] = (0.0, 0.0),
        flip_prob: float = 0.5,
        training: bool,
    ) -> None:
        if not 0 < resize_range[0] <= resize_range[1]:
            raise ValueError(f'resize_range must be positive and ascending, got {resize_range}')
        if not 0 <= bottom_crop_range[0] <= bottom_crop_range[1] < 1:
            raise ValueError(
                f'bottom_crop_range must ascend within [0, 1), got {bottom_crop_range}'
            )
        if not 0 <= flip_prob <= 1:
            raise ValueError(f'flip_prob is a probability, got {flip_prob}')
        self.size = (int(size[0]), int(size[1]))
        self.resize_range = tuple(resize_range)
        self.bottom_crop_range = tuple(bottom_crop_range)
        self.flip_prob = flip_prob
        self.training = training

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Applies one draw to all views; see the class."""
        source = results['img'][0].shape[:2]
        for camera, image in enumerate(results['img']):
            if image.shape[:2] != source:
                raise ValueError(
                    f'view {camera} is {image.shape[:2]} and view 0 is {source}; all views must '
                    'have one size'
                )
        resized, corner, flip = self._draw(*source)
        results['img'] = [self._image(image, resized, corner, flip) for image in results['img']]
        matrix = self._pixel_matrix(source, resized, corner, flip)
        results['cam2img'] = [
            _extend(matrix, len(intrinsic)) @ intrinsic for intrinsic in results['cam2img']
        ]
        results['lidar2img'] = project_matrix(results['cam2img'], results['lidar2cam'])
        results['img_shape'] = results['pad_shape'] = self.size
        results['scale_factor'] = (resized[1] / source[1], resized[0] / source[0])
        results['flip'] = flip
        return results

    def _draw(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int], bool]:
        """(height, width) after resizing, (x, y) of the crop's corner, flip."""
        out_height, out_width = self.size
        if self.training:
            scale = np.random.uniform(*self.resize_range)
            bottom = np.random.uniform(*self.bottom_crop_range)
            across = np.random.uniform()
            flip = bool(np.random.uniform() < self.flip_prob)
        else:
            scale = max(out_height / height, out_width / width)
            bottom, across, flip = float(np.mean(self.bottom_crop_range)), 0.5, False
        resized = (round(height * scale), round(width * scale))
        x = int(across * max(0, resized[1] - out_width))
        y = int((1 - bottom) * resized[0]) - out_height
        return resized, (x, y), flip

    def _image(
        self, image: np.ndarray, resized: tuple[int, int], corner: tuple[int, int], flip: bool
    ) -> np.ndarray:
        # Pillow's bicubic averages when it shrinks, as in the PETR project; OpenCV's does not.
        small = mmcv.imresize(image, resized[::-1], interpolation='bicubic', backend='pillow')
        x, y = corner
        x0, y0 = max(x, 0), max(y, 0)
        part = small[y0 : y + self.size[0], x0 : x + self.size[1]]
        if part.shape[:2] != self.size:
            canvas = np.zeros((*self.size, *image.shape[2:]), image.dtype)
            canvas[y0 - y :, x0 - x :][: part.shape[0], : part.shape[1]] = part
            part = canvas
        return np.ascontiguousarray(part[:, ::-1] if flip else part)

    def _pixel_matrix(
        self,
        source: tuple[int, int],
        resized: tuple[int, int],
        corner: tuple[int, int],
        flip: bool,
    ) -> np.ndarray:
        """(3, 3) from source pixels to output pixels."""
        matrix = np.diag([resized[1] / source[1], resized[0] / source[0], 1.0])
        matrix[:2, 2] = -np.array(corner, np.float64)
        if flip:
            matrix = np.array([[-1.0, 0, self.size[1]], [0, 1, 0], [0, 0, 1]]) @ matrix
        return matrix

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, resize_range={self.resize_range}, '
            f'bottom_crop_range={self.bottom_crop_range}, flip_prob={self.flip_prob}, '
            f'training={self.training})'
        )


@TRANSFORMS.register_module()
class MultiViewGlobalRotScale(BaseTransform):
    """Turns and scales the LiDAR frame: boxes and velocities one way, calibration the other.

    The images do not change. With G the turn about z and the scaling, boxes become G box and
    ``lidar2cam`` becomes lidar2cam G^-1, so that a box's corner projects to the pixel it projected
    to before. (The PETR project has a switch for the sense of rotation because mmdet3d changed its
    own; composing with the inverse of one matrix leaves nothing to choose.)

    Required keys: ``gt_bboxes_3d``, ``cam2img``, ``lidar2cam``, ``lidar2img``, ``ori_lidar2img``.

    Added keys: ``pcd_rotation_angle`` in rad, ``pcd_scale_factor``.

    Args:
        rotation_range: Angle in rad, drawn uniformly; PETR: +-22.5 degrees.
        scale_range: Factor, drawn uniformly; PETR: 0.95 to 1.05.
    """

    def __init__(
        self,
        *,
        rotation_range: tuple[float, float] = (-0.3925, 0.3925),
        scale_range: tuple[float, float] = (0.95, 1.05),
    ) -> None:
        if not 0 < scale_range[0] <= scale_range[1]:
            raise ValueError(f'scale_range must be positive and ascending, got {scale_range}')
        self.rotation_range = tuple(rotation_range)
        self.scale_range = tuple(scale_range)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Applies one draw to boxes and calibration; see the class."""
        angle = np.random.uniform(*self.rotation_range)
        scale = np.random.uniform(*self.scale_range)
        boxes = results['gt_bboxes_3d']
        boxes.rotate(angle)
        boxes.scale(scale)
        move = np.eye(4)
        cosine, sine = np.cos(angle), np.sin(angle)
        move[:3, :3] = scale * np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        back = np.linalg.inv(move)
        results['lidar2cam'] = [extrinsic @ back for extrinsic in results['lidar2cam']]
        results['lidar2img'] = results['lidar2img'] @ back
        results['ori_lidar2img'] = results['ori_lidar2img'] @ back
        results['pcd_rotation_angle'] = angle
        results['pcd_scale_factor'] = scale
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(rotation_range={self.rotation_range}, '
            f'scale_range={self.scale_range})'
        )


def _extend(matrix: np.ndarray, size: int) -> np.ndarray:
    """A (3, 3) pixel matrix for intrinsics that are padded to (4, 4)."""
    if size == 3:
        return matrix
    extended = np.eye(size)
    extended[:3, :3] = matrix
    return extended
