"""Projection: by hand, and point for point against nuscenes-devkit on a real frame."""

import numpy as np
import pytest

from s3pt_mm.data.geometry import lidar_to_camera, project_points, rigid

CAM2IMG = np.array([[64.0, 0, 50], [0, 64.0, 40], [0, 0, 1]])


def test_by_hand():
    points = np.array([[0.25, -0.125, 2.0, 7.0], [0.0, 0.0, 4.0, 7.0]], dtype=np.float32)
    uvd = project_points(points, np.eye(4), CAM2IMG, (100, 80))
    np.testing.assert_allclose(uvd, [[58, 36, 2], [50, 40, 4]], rtol=1e-6)
    assert uvd.dtype == np.float32


@pytest.mark.parametrize(
    'point',
    [
        [0, 0, 1.0],
        [0, 0, -5.0],
        [-1.53125, 0, 2.0],
        [1.53125, 0, 2.0],
        [0, -1.21875, 2.0],
        [0, 1.21875, 2.0],
    ],
)
def test_drops_what_the_camera_cannot_see(point):
    """At 1 m, behind, and exactly on the one-pixel border of each edge."""
    points = np.array([point], dtype=np.float32)
    assert project_points(points, np.eye(4), CAM2IMG, (100, 80)).shape == (0, 3)
    inside = points * [0.99, 0.99, 1.0]
    if point[2] == 2.0:
        assert len(project_points(inside, np.eye(4), CAM2IMG, (100, 80))) == 1


def test_no_points():
    empty = np.zeros((0, 5), np.float32)
    assert project_points(empty, np.eye(4), CAM2IMG, (100, 80)).shape == (0, 3)


@pytest.mark.parametrize('root', ['nuscenes_root', 'made_frame', 'real_frame'])
def test_equals_devkit(request, root):
    root = request.getfixturevalue(root)
    nuscenes = pytest.importorskip('nuscenes.nuscenes')
    nusc = nuscenes.NuScenes('v1.0-mini', str(root), verbose=False)
    sample = nusc.sample[0]
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    points = np.fromfile(root / lidar['filename'], np.float32).reshape(-1, 5)

    def pose(record, table, key):
        row = nusc.get(table, record[key])
        return rigid(row['rotation'], row['translation'])

    for name, token in sample['data'].items():
        if not name.startswith('CAM'):
            continue
        camera = nusc.get('sample_data', token)
        cam2img = nusc.get('calibrated_sensor', camera['calibrated_sensor_token'])
        lidar2cam = lidar_to_camera(
            lidar2ego=pose(lidar, 'calibrated_sensor', 'calibrated_sensor_token'),
            lidar_ego2global=pose(lidar, 'ego_pose', 'ego_pose_token'),
            cam2ego=pose(camera, 'calibrated_sensor', 'calibrated_sensor_token'),
            cam_ego2global=pose(camera, 'ego_pose', 'ego_pose_token'),
        )
        pixels, depth, image = nusc.explorer.map_pointcloud_to_image(
            sample['data']['LIDAR_TOP'], token
        )
        ours = project_points(points, lidar2cam, np.array(cam2img['camera_intrinsic']), image.size)
        assert len(ours) == len(depth) > 1000, name
        assert np.abs(ours[:, 2] - depth).max() < 1e-3, name
        # The devkit passes through world coordinates in float32 (0.1 mm there, 0.1 px here).
        assert np.abs(ours[:, :2] - pixels[:2].T).max() < 0.1, name
