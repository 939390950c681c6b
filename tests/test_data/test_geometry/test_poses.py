"""Rigid transforms against pyquaternion and their own algebra."""

import numpy as np
import pytest
from pyquaternion import Quaternion

from s3pt_mm.data.geometry import invert, lidar_to_camera, quaternion_to_rotation, rigid


@pytest.mark.parametrize('seed', range(5))
def test_rotation_equals_pyquaternion(seed):
    q = Quaternion(np.random.RandomState(seed).randn(4))
    np.testing.assert_allclose(
        quaternion_to_rotation(q.elements), q.rotation_matrix, rtol=0, atol=1e-12
    )


def test_inverse_undoes_the_transform():
    transform = rigid([0.5, -0.1, 0.3, 0.8], [1000.0, -2000.0, 3.0])
    np.testing.assert_allclose(invert(transform) @ transform, np.eye(4), atol=1e-9)


def test_lidar_to_camera_needs_both_ego_poses():
    """The car drives 1 m between sweep and exposure: a point 10 m ahead is then 9 m ahead."""
    here, later = np.eye(4), np.eye(4)
    later[0, 3] = 1.0
    lidar2cam = lidar_to_camera(
        lidar2ego=np.eye(4), lidar_ego2global=here, cam2ego=np.eye(4), cam_ego2global=later
    )
    np.testing.assert_allclose(lidar2cam @ [10, 0, 0, 1], [9, 0, 0, 1])


@pytest.mark.parametrize('bad', [[0, 0, 0, 0], [1, 0, 0], [np.nan, 0, 0, 1]])
def test_bad_quaternion(bad):
    with pytest.raises(ValueError, match='quaternion'):
        quaternion_to_rotation(bad)


def test_bad_translation():
    with pytest.raises(ValueError, match='translation'):
        rigid([1, 0, 0, 0], [0, np.nan, 0])
