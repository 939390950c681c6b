"""Each format's calibration, carried to pixels, equals the format's own formula."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.data.formats import FORMATS, log_format
from s3pt_mm.data.formats.command import add_arguments, run
from s3pt_mm.data.formats.frames import read_frame
from s3pt_mm.data.formats.points import read_points
from s3pt_mm.data.transforms.image import LoadImage
from s3pt_mm.data.transforms.lidar import LoadLidar
from tests.nuscenes_tables import write_jpeg
from tests.test_data.test_formats import logs


def convert(name: str, root: Path, out: Path, *options: str) -> dict[str, NuScenesImages]:
    """What ``s3pt-data NAME ROOT --out-dir OUT`` writes, opened by split."""
    parser = argparse.ArgumentParser()
    add_arguments(parser, name)
    run(parser.parse_args([str(root), '--out-dir', str(out), *options]), name)
    return {
        path.stem.rsplit('_', 1)[1]: NuScenesImages(ann_file=path.name, data_root=str(out))
        for path in sorted(out.glob(f'{name}_infos_*'))
    }


def seen(dataset: NuScenesImages, index: int) -> np.ndarray:
    """(M, 3) pixels and depth that pre-training sees in an image."""
    results = LoadImage().transform(dataset.get_data_info(index))
    return LoadLidar().transform(results)['lidar_uvd']


def assert_same_pixels(found: np.ndarray, expected: np.ndarray) -> None:
    assert len(found) == len(expected) > 50
    np.testing.assert_allclose(found, expected, atol=2e-3)


def index_of(dataset: NuScenesImages, camera: str, number: int) -> int:
    return [i for i in range(len(dataset)) if dataset.get_data_info(i)['cam'] == camera][number]


def test_kitti_raw_folds_the_fourth_column(tmp_path):
    data = convert('kitti-raw', logs.write_kitti_raw(tmp_path / 'kitti'), tmp_path / 'out')['train']
    assert len(data) == 6
    for camera, shift in (('image_02', 45.0), ('image_03', -340.0)):
        projection = logs.kitti_projection(shift) @ logs.LIDAR2CAM
        found = seen(data, index_of(data, camera, 0))
        assert_same_pixels(found, logs.reference_pixels(logs.cloud(0), projection))
    assert 'lidar_points' not in data.get_data_info(index_of(data, 'image_02', 1))


def test_kitti_object(tmp_path):
    root = logs.write_kitti_object(tmp_path / 'kitti')
    data = convert('kitti-object', root, tmp_path / 'out')['train']
    projection = logs.kitti_projection(45.0) @ logs.LIDAR2CAM
    assert_same_pixels(seen(data, 1), logs.reference_pixels(logs.cloud(1), projection))
    path = root / 'training' / 'calib' / '000001.txt'
    path.write_text(path.read_text().replace('P2:', 'P2: 1'))
    with pytest.raises(DataError, match='P2 has 13 numbers, not 12'):
        convert('kitti-object', root, tmp_path / 'again')


def test_pandaset_goes_through_both_poses(tmp_path):
    data = convert('pandaset', logs.write_pandaset(tmp_path / 'pandaset'), tmp_path / 'out')[
        'train'
    ]
    moved = np.eye(4)
    moved[0, 3] = -0.5  # the car drove on before the exposure
    projection = logs.INTRINSICS @ (logs.LIDAR2CAM @ moved)[:3]
    for index in range(2):
        points = logs.cloud(index)[:-50]
        assert_same_pixels(seen(data, index), logs.reference_pixels(points, projection))


def test_pickled_tables_run_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path(tmp_path / 'exploded').touch, ())

    (tmp_path / 'bomb.pkl').write_bytes(pickle.dumps({'x': Bomb()}))
    with (
        (tmp_path / 'bomb.pkl').open('rb') as file,
        pytest.raises(DataError, match='not a pickled'),
    ):
        read_frame(file, tmp_path / 'bomb.pkl')
    assert not (tmp_path / 'exploded').exists()


def test_pickled_tables_of_pandas_2(tmp_path):
    """The layout of pandas 1.3 to 2: blocks as calls, an object index, places as slices."""
    buffer = tmp_path / 'new.pkl'
    index = logs._AsPandas1(
        'pandas.core.indexes.base',
        '_new_Index',
        (
            logs._Global('pandas.core.indexes.base', 'Index'),
            {'data': np.array(['x', 'd'], dtype=object), 'name': None},
        ),
    )

    def block(values, *places):
        return logs._AsPandas1(
            'pandas._libs.internals',
            '_unpickle_block',
            (values, logs._AsPandas1('builtins', 'slice', places), 2),
        )

    blocks = (
        block(np.array([[1.5, 2.5]]), 0, 1, 1),
        block(np.asfortranarray(np.array([[0, 1]])), 1, 2, 1),
    )
    manager = logs._AsPandas1(
        'pandas.core.internals.managers', 'BlockManager', (blocks, [index, None])
    )
    frame = logs._AsPandas1('pandas.core.frame', 'DataFrame', (), {'_mgr': manager})
    with buffer.open('wb') as file:
        logs._Pickler(file, protocol=4).dump(frame)
    with buffer.open('rb') as file:
        columns = read_frame(file, buffer)
    np.testing.assert_array_equal(columns['x'], [1.5, 2.5])
    np.testing.assert_array_equal(columns['d'], [0, 1])


CALIBRATION = {
    'image_size': [logs.WIDTH, logs.HEIGHT],
    'cameras': {
        'front': {
            'matrix': logs.INTRINSICS.tolist(),
            'lidar_to_camera': logs.LIDAR2CAM.tolist(),
        }
    },
}


def write_folder(root: Path, calibration: dict | None) -> Path:
    for index in range(4):
        write_jpeg(root / 'images' / 'front' / f'{index:03d}.jpg', index, logs.WIDTH, logs.HEIGHT)
        (root / 'lidar').mkdir(exist_ok=True)
        np.save(root / 'lidar' / f'{index:03d}.npy', logs.cloud(index))
    if calibration is not None:
        (root / 'calibration.json').write_text(json.dumps(calibration))
    return root


def test_folder_with_one_extrinsic(tmp_path):
    data = convert('folder', write_folder(tmp_path / 'log', CALIBRATION), tmp_path / 'out',
                   '--val-share', '0.25')  # fmt: skip
    assert {split: len(part) for split, part in data.items()} == {'train': 3, 'val': 1}
    projection = logs.INTRINSICS @ logs.LIDAR2CAM[:3]
    assert_same_pixels(seen(data['val'], 0), logs.reference_pixels(logs.cloud(3), projection))


def test_folder_without_calibration_is_images_alone(tmp_path):
    data = convert('folder', write_folder(tmp_path / 'log', None), tmp_path / 'out')['train']
    assert len(data) == 4
    assert not {'cam2img', 'lidar_points'} & data.get_data_info(0).keys()


@pytest.mark.parametrize('model', ['brown', 'fisheye'])
def test_lenses_are_opencvs(tmp_path, model):
    coefficients = [-0.25, 0.06, 0.001, -0.0005] if model == 'brown' else [0.05, -0.01, 0.002, 0.0]
    calibration = json.loads(json.dumps(CALIBRATION))
    calibration['cameras']['front']['distortion'] = dict(model=model, coefficients=coefficients)
    data = convert('folder', write_folder(tmp_path / 'log', calibration), tmp_path / 'out')['train']
    found = seen(data, 0)
    points = logs.cloud(0)[:, :3].astype(np.float64)
    camera = points @ logs.LIDAR2CAM[:3, :3].T + logs.LIDAR2CAM[:3, 3]
    zero, coefficients = np.zeros(3), np.array(coefficients)
    project = cv2.fisheye.projectPoints if model == 'fisheye' else cv2.projectPoints
    pixels = project(camera[:, None], zero, zero, logs.INTRINSICS, coefficients)[0][:, 0]
    inside = ((pixels > 1) & (pixels < (logs.WIDTH - 1, logs.HEIGHT - 1))).all(1)
    assert_same_pixels(found, np.c_[pixels, camera[:, 2]][inside])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(distortion=dict(model='double_sphere', coefficients=[1, 2])), 'double_sphere'),
        (dict(distortion=dict(model='fisheye', coefficients=[1])), 'takes .4,. finite'),
        (dict(matrix=[[1, 0, 0], [0, 0, 0], [0, 0, 1]]), 'fx, fy > 0'),
        (dict(lidar_to_camera=np.zeros((4, 4)).tolist()), 'orthonormal'),
        (dict(lidar_to_camera=dict(rotation=[0, 0, 0, 0], translation=[0, 0, 0])), 'no direction'),
        (dict(lidar_to_camera=(logs.LIDAR2CAM @ np.diag([1, -1, 1, 1])).tolist()), 'mirrors'),
        (dict(distortion=[0.1, 0, 0, 0]), r'got \[0\.1, 0, 0, 0\]'),
        (dict(distorsion=[]), r"camera 'front' has \['distorsion'\].*Known: .*'distortion'"),
        (dict(image_size='big'), "camera 'front' at '000': ValueError"),
        (dict(matrix=None), 'has a place, but no focal length'),
        (dict(lidar_to_camera=None, to_ego=[]), 'has to_ego, the LiDAR has not'),
    ],
)
def test_bad_calibration_is_named(tmp_path, change, message):
    calibration = json.loads(json.dumps(CALIBRATION))
    front = calibration['cameras']['front']
    front.update(change)
    calibration['cameras']['front'] = {k: value for k, value in front.items() if value is not None}
    with pytest.raises(DataError, match=message):
        convert('folder', write_folder(tmp_path / 'log', calibration), tmp_path / 'out')


def test_a_camera_that_the_calibration_forgot(tmp_path):
    root = write_folder(tmp_path / 'log', CALIBRATION)
    write_jpeg(root / 'images' / 'back' / '000.jpg', 0, logs.WIDTH, logs.HEIGHT)
    with pytest.raises(DataError, match="camera 'back' has images, and cameras lists only"):
        convert('folder', root, tmp_path / 'out')


def test_skip_names_what_it_leaves_out(tmp_path, capsys):
    root = write_folder(tmp_path / 'log', CALIBRATION)
    (root / 'lidar' / '001.npy').write_bytes(b'torn')
    with pytest.raises(DataError, match='not a readable point cloud'):
        convert('folder', root, tmp_path / 'out')
    with pytest.raises(DataError, match='1 of 4 samples cannot be used'):
        convert('folder', root, tmp_path / 'out', '--on-error', 'skip')
    options = ('--on-error', 'skip', '--max-failed-share', '0.3')
    assert len(convert('folder', root, tmp_path / 'out', *options)['train']) == 3
    assert 'left out 001' in capsys.readouterr().out


def test_what_was_extracted_is_taken_as_it_is(tmp_path):
    root = write_folder(tmp_path / 'log', CALIBRATION)
    convert('folder', root, tmp_path / 'out')
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out' / 'lidar').iterdir()}
    convert('folder', root, tmp_path / 'out')
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize('suffix', ['.bin', '.npy', '.pcd', '.ply', '.laz'])
def test_every_ending_gives_the_same_points(tmp_path, suffix):
    points, path = logs.cloud(), tmp_path / f'cloud{suffix}'
    if suffix == '.bin':
        logs.write_bin(path, points)
    elif suffix == '.npy':
        np.save(path, points)
    elif suffix == '.pcd':
        from pypcd4 import PointCloud

        PointCloud.from_points(points, ('x', 'y', 'z', 'intensity'), (np.float32,) * 4).save(path)
    elif suffix == '.ply':
        from plyfile import PlyData, PlyElement

        rows = np.rec.fromarrays(points.T, names='x,y,z,intensity')
        PlyData([PlyElement.describe(rows, 'vertex')]).write(str(path))
    else:
        import laspy

        cloud = laspy.create()
        cloud.header.scales = [1e-4] * 3
        cloud.x, cloud.y, cloud.z = points[:, :3].T.astype(np.float64)
        cloud.write(path)
    np.testing.assert_allclose(read_points(path)[:, :3], points[:, :3], atol=1e-4)
    path.write_bytes(path.read_bytes()[:37])
    with pytest.raises(DataError, match='not a readable point cloud'):
        read_points(path)


def test_every_format_says_what_it_reads():
    assert all(log_format(name).help for name in FORMATS)
