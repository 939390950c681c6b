"""Formats that hide images and sweeps in containers: what comes out equals what went in."""

from __future__ import annotations

import contextlib
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy.spatial.transform import Rotation

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats import log_format
from s3pt_mm.data.formats.waymo import range_image_points
from tests.nuscenes_tables import street
from tests.test_data.test_formats import containers, logs
from tests.test_data.test_formats.test_adapters import assert_same_pixels, convert, seen


def test_argoverse2_goes_through_both_poses(tmp_path):
    root = containers.write_argoverse2(tmp_path / 'av2')
    data = convert('argoverse2', root, tmp_path / 'out')['train']
    assert len(data) == 2
    for index in range(2):
        sweep, image = containers.world_pose(index), containers.world_pose(index + 1)
        projection = logs.INTRINSICS @ (logs.LIDAR2CAM @ np.linalg.inv(image) @ sweep)[:3]
        points = logs.cloud(index).astype(np.float16).astype(np.float32)
        assert_same_pixels(seen(data, index), logs.reference_pixels(points, projection))
    next((root / 'abcd' / 'sensors' / 'lidar').iterdir()).write_bytes(b'torn')
    with pytest.raises(DataError, match='not a readable table'):
        convert('argoverse2', root, tmp_path / 'again')


def waymo_points(image: np.ndarray, laser: np.ndarray) -> np.ndarray:
    """One pixel at a time, from the data set's description."""
    points = []
    height, width = image.shape[:2]
    turn = np.arctan2(laser[1, 0], laser[0, 0])
    for row in range(height):
        beam = containers.BEAMS[height - 1 - row]
        for column in range(width):
            if image[row, column, 0] > 0:
                azimuth = ((width - column - 0.5) / width * 2 - 1) * np.pi - turn
                direction = (np.cos(azimuth) * np.cos(beam), np.sin(azimuth) * np.cos(beam),
                             np.sin(beam))  # fmt: skip
                points.append(
                    laser[:3, :3] @ (image[row, column, 0] * np.array(direction)) + laser[:3, 3]
                )
    return np.array(points)


def test_waymo(tmp_path):
    laser = np.eye(4)
    laser[:3, :3] = Rotation.from_euler('z', 25.0, degrees=True).as_matrix()
    laser[:3, 3] = (1.4, 0.0, 2.1)
    root = containers.write_waymo(tmp_path / 'waymo', laser)
    data = convert('waymo', root, tmp_path / 'out')['train']
    assert len(data) == 2
    for index in range(2):
        points = waymo_points(containers.waymo_range_image(index), laser)
        points[:, 0] -= 0.4  # the vehicle drove on before the exposure
        camera = points @ logs.LIDAR2CAM[:3, :3].T + logs.LIDAR2CAM[:3, 3]
        # Beyond 60 degrees this lens's polynomial folds points back into the image.
        ahead = camera[:, 2] > np.maximum(1, np.hypot(camera[:, 0], camera[:, 1]) / 1.5)
        camera = camera[ahead]
        lens = np.array([containers.WAYMO_LENS[name] for name in ('k1', 'k2', 'p1', 'p2', 'k3')])
        zero = np.zeros(3)
        pixels = cv2.projectPoints(camera[:, None], zero, zero, logs.INTRINSICS, lens)[0][:, 0]
        inside = ((pixels > 1) & (pixels < (logs.WIDTH - 1, logs.HEIGHT - 1))).all(1)
        assert_same_pixels(seen(data, index), np.c_[pixels, camera[:, 2]][inside])


def test_waymo_without_beam_values_spaces_them_evenly():
    beams = {
        '[LiDARCalibrationComponent].extrinsic.transform': np.eye(4).ravel(),
        '[LiDARCalibrationComponent].beam_inclination.min': -0.4,
        '[LiDARCalibrationComponent].beam_inclination.max': 0.4,
    }
    points = range_image_points(np.full((4, 8, 2), 10.0), beams, None, np.eye(4))
    np.testing.assert_allclose(np.arcsin(points[::8, 2] / 10), [0.3, 0.1, -0.1, -0.3], atol=1e-6)


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_bags(tmp_path, storage):
    bag = containers.write_bag(tmp_path / 'bag', storage=storage)
    data = convert('rosbag', bag, tmp_path / 'out', '--every', '0.6')['train']
    items = [data.get_data_info(i) for i in range(len(data))]
    assert [item['cam'] for item in items] == ['front', 'rear'] * 4
    assert 'lidar_points' not in items[1]  # no camera info
    rear = cv2.imread(items[3]['img_path'])
    np.testing.assert_array_equal(rear, street(3, logs.WIDTH, logs.HEIGHT))
    points = logs.cloud(3)[:, :3].astype(np.float64)
    camera = points @ logs.LIDAR2CAM[:3, :3].T + logs.LIDAR2CAM[:3, 3]
    lens, zero = np.array([-0.1, 0.02, 0, 0, 0]), np.zeros(3)
    pixels = cv2.projectPoints(camera[:, None], zero, zero, logs.INTRINSICS, lens)[0][:, 0]
    inside = ((pixels > 1) & (pixels < (logs.WIDTH - 1, logs.HEIGHT - 1))).all(1)
    assert_same_pixels(seen(data, 2), np.c_[pixels, camera[:, 2]][inside])


def test_bag_through_the_world(tmp_path):
    """The car drives 1 m/s: 2 cm between a sweep and its image 20 ms later."""
    bag = containers.write_bag(tmp_path / 'bag', moving=True)
    still = convert('rosbag', bag, tmp_path / 'still')['train'].get_data_info(0)
    driven = convert('rosbag', bag, tmp_path / 'driven', '--world-frame', 'odom')['train']
    moved = driven.get_data_info(0)['lidar_points']['lidar2cam']
    difference = moved[:3, 3] - still['lidar_points']['lidar2cam'][:3, 3]
    np.testing.assert_allclose(difference, (0, 0, -0.02), atol=1e-6)
    with pytest.raises(DataError, match="/tf has no transform 'map'"):
        convert('rosbag', bag, tmp_path / 'map', '--world-frame', 'map')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--lidar-topic', '/absent'), r"no topic \['/absent'\]"),
        (('--image-topics', '/nope'), r"no topic \['/nope'\]"),
    ],
)
def test_bag_topics_are_named(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        convert('rosbag', containers.write_bag(tmp_path / 'bag'), tmp_path / 'out', *options)


def test_nothing_that_can_be_used_is_an_error(tmp_path):
    root = containers.write_waymo(tmp_path / 'waymo', np.eye(4))
    images = next((root / 'camera_image').iterdir())
    table = parquet.read_table(images)
    name = '[CameraImageComponent].image'
    garbled = pa.array([[1]] * len(table))
    parquet.write_table(table.set_column(table.column_names.index(name), name, garbled), images)
    every = ['--on-error', 'skip', '--max-failed-share', '1']
    with pytest.raises(DataError, match='2 of 2 samples cannot be used'):
        convert('waymo', root, tmp_path / 'out', *every)


@pytest.mark.parametrize('component', ['lidar_calibration', 'vehicle_pose', 'camera_calibration'])
def test_a_table_without_rows_or_with_other_values(tmp_path, component):
    """One line that names the log or the table, not a traceback of ours."""
    root = containers.write_waymo(tmp_path / 'waymo', np.eye(4))
    path = next((root / component).iterdir())
    table = parquet.read_table(path)
    parquet.write_table(table.slice(0, 0), path)
    with pytest.raises(DataError, match='waymo'):
        convert('waymo', root, tmp_path / 'out')
    for name in table.column_names:
        garbled = pa.array([['x']] * len(table))
        parquet.write_table(table.set_column(table.column_names.index(name), name, garbled), path)
        with contextlib.suppress(DataError):
            convert('waymo', root, tmp_path / f'out {name}')


def test_torn_bag(tmp_path):
    (tmp_path / 'torn.bag').write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(DataError, match='not a readable bag'):
        convert('rosbag', tmp_path / 'torn.bag', tmp_path / 'out')


def brightness(data) -> list[int]:
    """Numbers of the frames that were taken, from their brightness."""
    paths = [data.get_data_info(i)['img_path'] for i in range(len(data))]
    return [round((cv2.imread(path).mean() - 10) / 8) for path in paths]


def test_video_by_time(tmp_path):
    containers.write_video(tmp_path / 'videos' / 'drive.mp4')
    data = convert('video', tmp_path / 'videos', tmp_path / 'out')['train']
    assert brightness(data) == [0, 5, 10, 15, 20, 25]
    for path in sorted((tmp_path / 'out' / 'images' / 'camera').iterdir())[:2]:
        path.unlink()  # a run that was killed: the rest is taken as it is
    assert brightness(convert('video', tmp_path / 'videos', tmp_path / 'out')['train'])[:2] == [
        0,
        5,
    ]


def test_video_by_distance(tmp_path):
    video = containers.write_video(tmp_path / 'drive.mp4')
    (tmp_path / 'drive.csv').write_text('time,x,y\n0,0,0\n1,0,0\n2,10,0\n3,20,0\n')
    data = convert('video', video, tmp_path / 'out', '--every-metres', '5')['train']
    assert brightness(data) == [0, 15, 20, 25]  # it stands for a second
    (tmp_path / 'drive.csv').write_text('seconds,x,y\n0,0,0\n')
    with pytest.raises(DataError, match='not a readable track'):
        convert('video', video, tmp_path / 'out', '--every-metres', '5')


def test_another_video_of_the_same_name_is_refused(tmp_path):
    """Its frames would have been those of the first, in silence."""
    one = containers.write_video(tmp_path / 'monday' / 'drive.mp4')
    convert('video', one, tmp_path / 'out')
    shutil.move(tmp_path / 'monday', tmp_path / 'moved')
    convert('video', tmp_path / 'moved' / 'drive.mp4', tmp_path / 'out')
    other = containers.write_video(tmp_path / 'tuesday' / 'drive.mp4')
    with other.open('ab') as file:
        file.write(b'\0' * 8)
    with pytest.raises(DataError, match="tuesday/drive.mp4: .*files of another 'drive'.*--out-dir"):
        convert('video', other, tmp_path / 'out')


def test_names_are_no_patterns(tmp_path):
    """``clip[1].mp4`` took the frames of ``clip1.mp4``."""
    for name in ('clip1', 'clip[1]'):
        containers.write_video(tmp_path / 'videos' / f'{name}.mp4')
    data = convert('video', tmp_path / 'videos', tmp_path / 'out')['train']
    assert len({data.get_data_info(i)['img_path'] for i in range(len(data))}) == 12


def test_torn_video(tmp_path):
    (tmp_path / 'torn.mp4').write_bytes(b'no video')
    with pytest.raises(DataError, match='not a readable video'):
        convert('video', tmp_path / 'torn.mp4', tmp_path / 'out')


@pytest.mark.parametrize('name', ['kitti-raw', 'kitti-object', 'waymo', 'argoverse2', 'pandaset'])
def test_a_wrong_root_is_said(tmp_path, name):
    """A folder that is absent, and one that holds something else."""
    adapter = log_format(name)
    with pytest.raises(DataError, match='absent: no such file or folder'):
        list(adapter(tmp_path / 'absent', None).samples())
    with pytest.raises(DataError, match='no .* in it. Give the folder'):
        list(adapter(tmp_path, None).samples())
