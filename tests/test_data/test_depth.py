"""Densified depth, added sweeps and depth maps: what reaches the tokens."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.data.datasets.info_file import write_info_file
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.data.geometry import project_points
from s3pt_mm.data.geometry.completion import complete_nearest, complete_points
from s3pt_mm.data.transforms import LoadDepthMap, LoadLidar
from s3pt_mm.data.transforms.depth_map import read_depth_map
from tests.nuscenes_tables import write_jpeg

SIZE = (800, 450)
FILLED = ('nearest', 'classical')


def rings(distance: np.ndarray, top: int = 120) -> np.ndarray:
    """(M, 3) returns of a scan whose lines lie 20 pixels apart, from a (450, 800) depth image."""
    v, u = np.mgrid[top : SIZE[1] : 20, 4 : SIZE[0] : 6]
    depth = distance[v, u]
    return np.stack([u, v, depth], -1).reshape(-1, 3)[depth.ravel() > 0].astype(np.float32)


def as_image(points: np.ndarray, cell: float = 2.0) -> np.ndarray:
    image = np.zeros((int(SIZE[1] / cell), int(SIZE[0] / cell)), np.float32)
    image[tuple((points[:, 1::-1] / cell).astype(int).T)] = points[:, 2]
    return image


@pytest.mark.parametrize('method', FILLED)
def test_gaps_are_filled_and_sky_is_not(method: str) -> None:
    wall = np.zeros(SIZE[::-1], np.float32)
    wall[100:], wall[:, 400:] = 20.0, 0.0
    wall[200:, 400:] = 35.0  # lower on the right: sky reaches further down
    dense = as_image(complete_points(rings(wall), SIZE, method=method))
    assert not dense[:58].any() and not dense[:96, 205:].any()
    assert dense[62:, :195] == pytest.approx(20, abs=0.01)
    assert dense[104:, 205:] == pytest.approx(35, abs=0.01)
    share = (as_image(rings(wall)) > 0).mean()
    assert (dense > 0).mean() > 5 * share


@pytest.mark.parametrize('method', FILLED)
def test_what_is_near_keeps_its_edge(method: str) -> None:
    scene = np.full(SIZE[::-1], 40.0, np.float32)
    scene[200:400, 300:500] = 8.0
    dense = as_image(complete_points(rings(scene), SIZE, method=method))
    assert dense[150, 200] == pytest.approx(8, abs=0.01)
    assert dense[150, 100] == dense[90, 200] == pytest.approx(40, abs=0.01)
    # The closest return of a cell hides the others.
    double = np.concatenate([rings(scene), rings(scene) + np.float32([0, 0, 30])])
    np.testing.assert_array_equal(as_image(complete_points(double, SIZE, method=method)), dense)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.sampled_from([0, 1, 2, 300]))
@pytest.mark.parametrize('method', FILLED)
def test_depths_stay_within_what_was_measured(method: str, seed: int, count: int) -> None:
    random = np.random.RandomState(seed)
    points = random.uniform([1, 1, 2], [799, 449, 80], (count, 3)).astype(np.float32)
    found = complete_points(points, SIZE, method=method)
    assert found.shape[1:] == (3,) and found.dtype == np.float32
    if count:
        assert (found[:, :2] >= 0).all() and (found[:, :2] < [SIZE[0] + 2, SIZE[1] + 2]).all()
        low, high = points[:, 2].min(), points[:, 2].max()
        assert (found[:, 2] >= low - 1e-3).all() and (found[:, 2] <= high + 1.001).all()
    assert complete_points(points, SIZE, method='none') is points


def test_nearest_is_the_nearest_return() -> None:
    sparse = np.zeros((40, 60), np.float32)
    sparse[20, 20], sparse[20, 30] = 10, 50
    dense = complete_nearest(sparse)
    assert (dense[20, 5:25] == 10).all() and (dense[20, 26:46] == 50).all()
    assert not dense[20, :4].any() and not dense[20, 47:].any()  # out of reach


class _Image:
    size = (640, 360)


def test_earlier_sweeps_are_carried_to_the_key_frame(tmp_path: Path) -> None:
    """One wall seen twice from a car that drove 2 m ahead: both sweeps land on the same pixels."""
    wall = np.random.RandomState(0).uniform([15, -4, -1], [15, 4, 1], (200, 3)).astype(np.float32)
    for name, shift in (('key', 2.0), ('earlier', 0.0)):
        points = np.pad(wall - np.float32([shift, 0, 0]), [(0, 0), (0, 2)])
        points.tofile(tmp_path / f'{name}.bin')
    to_camera = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    key_in_earlier = np.eye(4)  # key frame -> the earlier sweep's sensor
    key_in_earlier[0, 3] = 2.0
    sweep = dict(lidar_path=str(tmp_path / 'earlier.bin'), num_pts_feats=5)
    item = dict(
        img=_Image(),
        cam2img=np.array([[500.0, 0, 320], [0, 500, 180], [0, 0, 1]]),
        lidar_points=dict(
            lidar_path=str(tmp_path / 'key.bin'),
            num_pts_feats=5,
            lidar2cam=to_camera,
            sweeps=[{**sweep, 'lidar2sensor': key_in_earlier.tolist()}],
        ),
    )
    alone = LoadLidar()(dict(item))['lidar_uvd']
    both = LoadLidar(sweeps=3)(dict(item))['lidar_uvd']
    assert len(alone) == 200 and len(both) == 400
    np.testing.assert_allclose(both[200:], alone, atol=1e-2)


def test_info_file_lists_earlier_sweeps(nuscenes_root: Path, info_dir: Path) -> None:
    settings_ = dict(
        data_root=str(nuscenes_root), ann_file=str(info_dir / 'nuscenes_infos_train.parquet')
    )
    pipeline = [dict(type='LoadImage'), dict(type='LoadLidar', sweeps=5)]
    counts = []
    for sweeps in (0, 5):
        dataset = NuScenesImages(**settings_, lidar_sweeps=sweeps, pipeline=pipeline)
        counts.append([len(dataset[i]['lidar_uvd']) for i in range(len(dataset))])
    assert sum(counts[1]) > 1.3 * sum(counts[0])


def depth_item(path: Path) -> dict:
    return dict(img=_Image(), depth_map=str(path))


def test_png_and_npy_give_the_same_points(tmp_path: Path) -> None:
    depth = np.linspace(0, 100, 360 * 640, dtype=np.float32).reshape(360, 640)
    depth[:90] = 0
    np.save(tmp_path / 'a.npy', np.where(depth > 0, depth, np.nan))
    cv2.imwrite(str(tmp_path / 'a.png'), (depth * 100).round().astype(np.uint16))
    one = LoadDepthMap()(depth_item(tmp_path / 'a.npy'))['lidar_uvd']
    two = LoadDepthMap(scale=0.01)(depth_item(tmp_path / 'a.png'))['lidar_uvd']
    np.testing.assert_allclose(one, two, atol=0.006)
    assert one[:, 2].max() <= 80 and one[:, 1].min() > 90
    # Every point has the depth that the map has at its pixel.
    u, v = one[:, :2].astype(int).T
    np.testing.assert_array_equal(depth[v, u], one[:, 2])


def test_a_smaller_map_covers_the_whole_image(tmp_path: Path) -> None:
    np.save(tmp_path / 'a.npy', np.full((90, 160), 7.0, np.float32))
    points = LoadDepthMap()(depth_item(tmp_path / 'a.npy'))['lidar_uvd']
    np.testing.assert_allclose(points.min(0), [2, 2, 7])
    np.testing.assert_allclose(points.max(0), [638, 358, 7])


def test_bad_depth_maps_are_named(tmp_path: Path) -> None:
    cases = {
        'missing.png': (None, 'cannot read'),
        'text.png': (b'no image', 'not a readable'),
        'empty.npy': (b'', 'not a readable'),
        'colour.png': (np.ones((36, 64, 3), np.uint16), 'shape'),
        'eight.png': (np.ones((36, 64), np.uint8), 'uint8'),
        'zero.png': (np.zeros((36, 64), np.uint16), 'knows no depth'),
        'turned.png': (np.ones((64, 36), np.uint16), '36 x 64 pixels, its image 640 x 360'),
    }
    for name, (content, problem) in cases.items():
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            cv2.imwrite(str(path), content)
        with pytest.raises(DataError, match=problem) as raised:
            LoadDepthMap()(depth_item(path))
        assert name in str(raised.value)
    np.save(tmp_path / 'objects.npy', np.array([{}], dtype=object))
    with pytest.raises(DataError, match='not a readable'):
        read_depth_map(str(tmp_path / 'objects.npy'))
    torn = tmp_path / 'torn.npy'
    np.save(torn, np.ones((36, 64)))
    torn.write_bytes(torn.read_bytes()[:200])
    with pytest.raises(DataError, match='not a readable'):
        read_depth_map(str(torn))


PIPELINE = [
    {'type': 'LoadImage'},
    {'type': 'LoadLidar', 'depth_completion': 'classical'},
    {'type': 'LoadDepthMap'},
    {'type': 'TwoViews', 'size': 96},
    {'type': 'TokenGeometry'},
    {'type': 'PackViews'},
]


def test_folder_and_info_file_give_depth_maps(tmp_path: Path) -> None:
    write_jpeg(tmp_path / 'photos/monday/1.jpg', 0)
    (tmp_path / 'depth/monday').mkdir(parents=True)
    np.save(tmp_path / 'depth/monday/1.npy', np.full((90, 160), 7.0, np.float32))
    folder = ImageFolderDataset(
        data_root=str(tmp_path / 'photos'), depth_map='../depth/{path}.npy', pipeline=PIPELINE
    )
    image = dict(img_path='photos/monday/1.jpg', depth_map='monday/1.npy')
    write_info_file(tmp_path / 'infos.pkl', {}, [dict(token='a', images=dict(front=image))])
    infos = NuScenesImages(
        data_root=str(tmp_path),
        ann_file='infos.pkl',
        data_prefix=dict(img='', depth='depth'),
        pipeline=PIPELINE,
    )
    for dataset in (folder, infos):
        sample = dataset[0]['data_samples']
        assert sample.token_has_depth.all() and (sample.token_depth == 7).all()
    with pytest.raises(ValueError, match='{path}'):
        ImageFolderDataset(data_root=str(tmp_path), depth_map='depth.png')


def test_completed_lidar_gives_more_tokens_a_depth(nuscenes_root: Path, info_dir: Path) -> None:
    shares = []
    for method in ('none', 'classical'):
        lidar = dict(type='LoadLidar', depth_completion=method)
        pipeline = [dict(type='SeedFromIndex'), PIPELINE[0], lidar, *PIPELINE[3:]]
        dataset = NuScenesImages(
            data_root=str(nuscenes_root),
            ann_file=str(info_dir / 'nuscenes_infos_train.parquet'),
            pipeline=pipeline,
        )
        samples = [dataset[i]['data_samples'] for i in range(6)]
        shares.append(np.mean([s.token_has_depth.float().mean().item() for s in samples]))
    assert shares[1] > shares[0]


@pytest.mark.parametrize('change', [dict(depth_completion='net'), dict(sweeps=-1)])
def test_unknown_options_are_named(change: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(change.values())))):
        LoadLidar(**change)


def test_projection_is_untouched_without_completion(tmp_path: Path) -> None:
    points = np.random.RandomState(1).uniform([1, -9, -2, 0, 0], [40, 9, 2, 1, 1], (500, 5))
    points.astype(np.float32).tofile(tmp_path / 'a.bin')
    to_camera = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    cam2img = np.array([[500.0, 0, 320], [0, 500, 180], [0, 0, 1]])
    lidar = dict(lidar_path=str(tmp_path / 'a.bin'), num_pts_feats=5, lidar2cam=to_camera)
    found = LoadLidar()(dict(img=_Image(), cam2img=cam2img, lidar_points=lidar))['lidar_uvd']
    wanted = project_points(points.astype(np.float32), to_camera, cam2img, _Image.size)
    np.testing.assert_array_equal(found, wanted)
