"""Boxes and pixels stay together through resizing, cropping, mirroring, turning and scaling."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from s3pt_mm.detection.data.calibration import project, project_matrix
from s3pt_mm.detection.data.loading import LoadSurroundImages
from s3pt_mm.detection.data.transforms import MultiViewGlobalRotScale, MultiViewResizeCropFlip

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK')


def _augment(size: tuple[int, int] = (128, 320), **kwargs) -> MultiViewResizeCropFlip:
    return MultiViewResizeCropFlip(size=size, training=True, **kwargs)


def _blob_views(points: np.ndarray, lidar2img: np.ndarray, size: tuple[int, int]) -> list:
    """For each view an image that is black but for a round spot at a point's projection."""
    height, width = size
    # Pixel (i, j) covers [j, j + 1) x [i, i + 1): its centre is at + 0.5.
    columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    views = []
    for point, matrix in zip(points, lidar2img, strict=True):
        (x, y), _ = project(point, matrix)
        spot = np.exp(-((columns - x) ** 2) / 32) * np.exp(-((rows - y) ** 2) / 32)
        views.append(np.repeat((255 * spot).round().astype(np.uint8)[..., None], 3, axis=2))
    return views


def _centre_of_mass(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(np.float64)
    columns = np.arange(image.shape[1]) + 0.5
    rows = np.arange(image.shape[0]) + 0.5
    return np.array([(weight.sum(0) * columns).sum(), (weight.sum(1) * rows).sum()]) / weight.sum()


def _spot_sample(size: tuple[int, int] = (360, 640)) -> tuple[dict, np.ndarray]:
    """Two cameras, each with a spot where it sees the centre of its box."""
    height, width = size
    focal = 0.8 * width
    cam2img = [np.array([[focal, 0, 0.51 * width], [0, focal, 0.53 * height], [0, 0, 1]])] * 2
    forward = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, -0.3], [1, 0, 0, -0.5], [0, 0, 0, 1]])
    backward = forward @ np.diag([-1.0, -1, 1, 1])
    lidar2cam = [forward, backward]
    centres = np.array([[12.0, 1.5, -0.4], [-15.0, 2.5, -0.9]])
    lidar2img = project_matrix(cam2img, lidar2cam)
    boxes = torch.zeros(2, 9)
    boxes[:, :3] = torch.as_tensor(centres)
    boxes[:, 3:6] = torch.tensor([4.5, 1.9, 1.6])
    boxes[:, 6] = torch.tensor([0.3, -2.0])
    boxes[:, 7:] = torch.tensor([[5.0, 1.0], [-2.0, 0.5]])
    results = {
        'img': _blob_views(centres, lidar2img, size),
        'cam2img': [matrix.copy() for matrix in cam2img],
        'lidar2cam': lidar2cam,
        'lidar2img': lidar2img,
        'ori_lidar2img': lidar2img.copy(),
        'gt_bboxes_3d': LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)),
    }
    return results, centres


@pytest.mark.parametrize('seed', range(12))
def test_spots_stay_on_box_centres_through_all_augmentation(seed: int) -> None:
    """Random scale, crop, flip, turn and scaling: the pixels agree to a small part of a pixel."""
    results, _ = _spot_sample()
    np.random.seed(seed)
    results = _augment(resize_range=(0.45, 0.65), bottom_crop_range=(0, 0.1))(results)
    results = MultiViewGlobalRotScale(rotation_range=(-3.0, 3.0), scale_range=(0.8, 1.25))(results)
    centres = results['gt_bboxes_3d'].gravity_center.double().numpy()
    for view in range(2):
        pixel, depth = project(centres[view], results['lidar2img'][view])
        assert depth > 0
        assert results['img'][view].shape == (128, 320, 3)
        assert np.abs(pixel - _centre_of_mass(results['img'][view])).max() < 0.1


def test_both_sides_of_the_flip_occur_and_mirror_the_spot() -> None:
    flips = set()
    for seed in range(8):
        results, _ = _spot_sample()
        np.random.seed(seed)
        flips.add(_augment()(results)['flip'])
    assert flips == {False, True}


def test_corners_keep_their_pixels_when_the_frame_turns_and_scales() -> None:
    results, _ = _spot_sample()
    before = copy.deepcopy(results)
    results = MultiViewGlobalRotScale(rotation_range=(0.7, 0.7), scale_range=(1.1, 1.1))(results)
    for key in ('lidar2img', 'ori_lidar2img'):
        for view in range(2):
            old, _ = project(
                before['gt_bboxes_3d'].corners.double().numpy(), before['lidar2img'][view]
            )
            new, _ = project(results['gt_bboxes_3d'].corners.double().numpy(), results[key][view])
            assert np.abs(old - new).max() < 0.05
    assert results['pcd_rotation_angle'] == pytest.approx(0.7)
    assert results['pcd_scale_factor'] == pytest.approx(1.1)
    assert np.allclose(
        results['lidar2img'], project_matrix(results['cam2img'], results['lidar2cam'])
    )


def test_velocity_and_heading_turn_with_the_frame() -> None:
    results, _ = _spot_sample()
    old = results['gt_bboxes_3d'].tensor.clone()
    transform = MultiViewGlobalRotScale(rotation_range=(0.5, 0.5), scale_range=(1.2, 1.2))
    new = transform(results)['gt_bboxes_3d'].tensor
    assert torch.allclose(new[:, 6], old[:, 6] + 0.5)
    cosine, sine = np.cos(0.5), np.sin(0.5)
    turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float32)
    assert torch.allclose(new[:, 7:], 1.2 * old[:, 7:] @ turn.T, atol=1e-5)
    assert torch.allclose(new[:, 3:6], 1.2 * old[:, 3:6])


def test_an_empty_frame_passes_through() -> None:
    results, _ = _spot_sample()
    results['gt_bboxes_3d'] = LiDARInstance3DBoxes(torch.zeros(0, 9), box_dim=9)
    results = MultiViewGlobalRotScale()(_augment()(results))
    assert results['gt_bboxes_3d'].tensor.shape == (0, 9)


def test_testing_keeps_the_bottom_centre_as_petr_does(surround_results: dict) -> None:
    """Numbers of the PETR project for 1600 x 900 -> 800 x 320: half size, 130 rows of sky cut."""
    results, _ = _spot_sample(size=(900, 1600))
    image = results['img'][0].copy()
    intrinsic = results['cam2img'][0].copy()
    results = MultiViewResizeCropFlip(size=(320, 800), training=False)(results)
    expected = np.array([[0.5, 0, 0], [0, 0.5, -130], [0, 0, 1]]) @ intrinsic
    assert np.allclose(results['cam2img'][0], expected)
    assert results['flip'] is False
    assert results['img_shape'] == results['pad_shape'] == (320, 800)
    half = cv2.resize(image, (800, 450), interpolation=cv2.INTER_AREA)[130:]
    assert np.abs(half.astype(int) - results['img'][0]).max() <= 3


def test_a_small_scale_leaves_black_and_keeps_the_calibration() -> None:
    """PETR's smallest scale, 0.47, makes 752 columns of the 800 that the model sees."""
    results, _ = _spot_sample(size=(900, 1600))
    np.random.seed(1)
    transform = MultiViewResizeCropFlip(
        size=(320, 800), resize_range=(0.47, 0.47), flip_prob=0.0, training=True
    )
    results = transform(results)
    assert results['img'][0].shape == (320, 800, 3)
    assert not results['img'][0][:, 752:].any()
    centres = results['gt_bboxes_3d'].gravity_center.double().numpy()
    pixel, _ = project(centres[0], results['lidar2img'][0])
    assert np.abs(pixel - _centre_of_mass(results['img'][0])).max() < 0.1


def test_an_output_taller_than_the_image_is_black_on_top() -> None:
    results, _ = _spot_sample()
    transform = MultiViewResizeCropFlip(
        size=(400, 320), resize_range=(0.5, 0.5), flip_prob=0.0, training=True
    )
    results = transform(results)
    assert results['img'][0].shape == (400, 320, 3)
    assert not results['img'][0][:220].any()
    centres = results['gt_bboxes_3d'].gravity_center.double().numpy()
    pixel, _ = project(centres[1], results['lidar2img'][1])
    assert np.abs(pixel - _centre_of_mass(results['img'][1])).max() < 0.1


def test_same_seed_same_sample_for_all_views(surround_results: dict) -> None:
    outputs = []
    for _ in range(2):
        np.random.seed(5)
        results = LoadSurroundImages(cameras=CAMERAS)(copy.deepcopy(surround_results))
        outputs.append(_augment(size=(32, 80))(results))
    assert np.array_equal(outputs[0]['lidar2img'], outputs[1]['lidar2img'])
    for first, second in zip(outputs[0]['img'], outputs[1]['img'], strict=True):
        assert np.array_equal(first, second)
    cameras = surround_results['images'].values()
    moved = [
        after @ np.linalg.inv(info['cam2img'])
        for after, info in zip(outputs[0]['cam2img'], cameras, strict=True)
    ]
    assert np.allclose(moved[0], moved[1])
    assert np.allclose(moved[0], moved[2])


def test_views_of_different_size_are_an_error() -> None:
    results, _ = _spot_sample()
    results['img'][1] = results['img'][1][:-1]
    with pytest.raises(ValueError, match=r'view 1 is \(359, 640\) and view 0 is \(360, 640\)'):
        _augment()(results)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'resize_range': (0.6, 0.5)}, 'resize_range'),
        ({'resize_range': (0.0, 0.5)}, 'resize_range'),
        ({'bottom_crop_range': (0.5, 1.0)}, 'bottom_crop_range'),
        ({'flip_prob': 1.5}, 'flip_prob'),
    ],
)
def test_impossible_settings(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _augment(**kwargs)
    with pytest.raises(ValueError, match='scale_range'):
        MultiViewGlobalRotScale(scale_range=(1.1, 1.0))
