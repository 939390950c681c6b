"""Loading of surround images: order, calibration, and every kind of bad input."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from s3pt_mm.common.errors import DataError
from s3pt_mm.detection.data.calibration import project
from s3pt_mm.detection.data.loading import LoadSurroundImages
from tests.damaged_jpegs import BEYOND, DAMAGE, write_noise

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK')


def _load(results: dict, cameras: tuple[str, ...] = CAMERAS) -> dict:
    return LoadSurroundImages(cameras=cameras)(results)


def test_images_are_bgr_and_matrices_project(surround_results: dict) -> None:
    path = surround_results['images']['CAM_BACK']['img_path']
    results = _load(surround_results)
    assert np.array_equal(results['img'][2], cv2.imread(path))
    assert results['img_shape'] == results['ori_shape'] == (90, 160)
    assert results['lidar2img'].shape == (3, 4, 4)
    # A point on the optical axis of each camera falls on its principal point, at its depth.
    for view in range(3):
        axis = np.linalg.inv(results['lidar2cam'][view]) @ (0, 0, 7.0, 1)
        pixel, depth = project(axis[:3], results['lidar2img'][view])
        assert np.allclose(pixel, (81.6, 49.1))
        assert depth == pytest.approx(7.0)


def test_exif_turns_no_image_with_a_calibration(surround_results: dict, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    entry = surround_results['images']['CAM_BACK']
    image, found = Image.open(entry['img_path']), []
    for name, options in dict(plain={}, turned=dict(exif=exif)).items():
        image.save(tmp_path / f'{name}.jpg', **options)
        entry['img_path'] = str(tmp_path / f'{name}.jpg')
        found.append(_load(surround_results)['img'][2])
    assert np.array_equal(*found)


def test_order_of_the_config_rules_not_that_of_the_file(surround_results: dict) -> None:
    images = surround_results['images']
    surround_results['images'] = dict(reversed(images.items()))
    results = _load(surround_results, CAMERAS[:2])
    assert list(results['images']) == list(CAMERAS[:2])
    assert results['camera_names'] == CAMERAS[:2]
    for view, camera in enumerate(CAMERAS[:2]):
        assert np.array_equal(results['img'][view], mmcv.imread(images[camera]['img_path']))
        assert np.array_equal(results['lidar2cam'][view], images[camera]['lidar2cam'])


def test_missing_camera_is_named(surround_results: dict) -> None:
    del surround_results['images']['CAM_BACK']
    with pytest.raises(DataError, match=r"the-token: camera \['CAM_BACK'\] is missing"):
        _load(surround_results)


def test_camera_listed_twice() -> None:
    with pytest.raises(ValueError, match='listed twice'):
        LoadSurroundImages(cameras=('CAM_FRONT', 'CAM_FRONT'))


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('cam2img', [[np.nan, 0, 80], [0, 126, 45], [0, 0, 1]], 'cam2img .* is not finite'),
        ('lidar2cam', np.full((4, 4), np.inf).tolist(), 'lidar2cam .* is not finite'),
        ('lidar2cam', np.zeros((4, 4)).tolist(), 'lidar2cam .* cannot be inverted'),
        ('cam2img', [[1, 0], [0, 1]], r'cam2img .* has shape \(2, 2\)'),
        ('width', 320, 'is 160 x 90 pixels, its calibration is for 320 x 90'),
    ],
)
def test_bad_calibration_names_file_camera_and_value(
    surround_results: dict, key: str, value: object, message: str
) -> None:
    surround_results['images']['CAM_FRONT_LEFT'][key] = value
    with pytest.raises(DataError, match=message) as caught:
        _load(surround_results)
    assert 'CAM_FRONT_LEFT' in str(caught.value)
    assert 'the-token' in str(caught.value)


@pytest.mark.parametrize('factor', [0.5, 2.0])
def test_image_of_another_size_than_the_calibration(surround_results: dict, factor: float) -> None:
    """Found even if the info file declares no size, as mmdet3d's own does not."""
    for info in surround_results['images'].values():
        del info['height'], info['width']
        image = cv2.imread(info['img_path'])
        cv2.imwrite(info['img_path'], cv2.resize(image, None, fx=factor, fy=factor))
    with pytest.raises(DataError, match=r'principal point is \(81.6, 49.1\)'):
        _load(surround_results)


def test_one_smaller_image_is_not_padded(surround_results: dict) -> None:
    info = surround_results['images']['CAM_BACK']
    cv2.imwrite(info['img_path'], np.zeros((80, 150, 3), np.uint8))
    del info['height'], info['width']
    with pytest.raises(DataError, match=r"differ in .*'CAM_BACK': \(80, 150\)"):
        _load(surround_results)


def test_missing_and_torn_files(surround_results: dict, tmp_path: Path) -> None:
    info = surround_results['images']['CAM_FRONT']
    whole = write_noise(tmp_path / 'a.jpg', 160, 90)
    info['img_path'] = str(whole)
    assert np.array_equal(_load(surround_results.copy())['img'][0], cv2.imread(str(whole)))
    data = whole.read_bytes()
    for damage in (DAMAGE | BEYOND).values():
        whole.write_bytes(damage(data))
        with pytest.raises(DataError, match=r'a.jpg: .*\(CAM_FRONT, sample the-token\)'):
            _load(surround_results.copy())
    info['img_path'] = str(tmp_path / 'nowhere.jpg')
    with pytest.raises(DataError, match=r'nowhere.jpg: no such file \(CAM_FRONT'):
        _load(surround_results)
