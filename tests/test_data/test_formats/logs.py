"""Small logs with the true layout of public formats, all of the same made scene."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np

from tests.nuscenes_tables import write_jpeg

WIDTH, HEIGHT = 320, 180
INTRINSICS = np.array([[200.0, 0.0, 161.0], [0.0, 210.0, 88.0], [0.0, 0.0, 1.0]])
# Camera axes (right, down, forward) in LiDAR axes (forward, left, up), and a lever arm.
LIDAR2CAM = np.array(
    [[0.0, -1.0, 0.0, 0.1], [0.0, 0.0, -1.0, -0.2], [1.0, 0.0, 0.0, -0.3], [0.0, 0.0, 0.0, 1.0]]
)


def cloud(seed: int = 0, points: int = 500) -> np.ndarray:
    """(points, 4) float32: x, y, z ahead of the car, intensity."""
    random = np.random.RandomState(seed)
    low, high = (4, -8, -2, 0), (40, 8, 3, 1)
    return random.uniform(low, high, (points, 4)).astype(np.float32)


def reference_pixels(points: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """(M, 3) pixels and depth of points by one (3, 4) matrix, where the default rule keeps them."""
    homogeneous = np.c_[points[:, :3].astype(np.float64), np.ones(len(points))] @ projection.T
    uv = homogeneous[:, :2] / homogeneous[:, 2:]
    seen = (homogeneous[:, 2] > 1) & (uv > 1).all(1) & (uv < (WIDTH - 1, HEIGHT - 1)).all(1)
    return np.c_[uv, homogeneous[:, 2]][seen]


def write_bin(path: Path, points: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    points.astype(np.float32).tofile(path)
    return path


def kitti_projection(shift: float) -> np.ndarray:
    """KITTI's P: the camera beside the reference by ``shift`` pixels times metres."""
    return np.c_[INTRINSICS, (shift, -0.3, 0.002)]


def _line(name: str, values: np.ndarray) -> str:
    return f'{name}: ' + ' '.join(f'{value:.12e}' for value in np.ravel(values)) + '\n'


def write_kitti_raw(root: Path) -> Path:
    date = root / '2011_09_26'
    drive = date / '2011_09_26_drive_0001_sync'
    for index in range(3):
        for camera in ('image_02', 'image_03'):
            write_jpeg(drive / camera / 'data' / f'{index:010d}.png', index, WIDTH, HEIGHT)
        if index != 1:  # the published drives lack some sweeps
            write_bin(drive / 'velodyne_points' / 'data' / f'{index:010d}.bin', cloud(index))
    (date / 'calib_cam_to_cam.txt').write_text(
        'calib_time: 09-Jan-2012 13:57:47\n'
        + _line('R_rect_00', np.eye(3))
        + _line('P_rect_02', kitti_projection(45.0))
        + _line('P_rect_03', kitti_projection(-340.0))
    )
    (date / 'calib_velo_to_cam.txt').write_text(
        _line('R', LIDAR2CAM[:3, :3]) + _line('T', LIDAR2CAM[:3, 3])
    )
    return root


def write_kitti_object(root: Path) -> Path:
    for index in range(2):
        write_jpeg(root / 'training' / 'image_2' / f'{index:06d}.png', index, WIDTH, HEIGHT)
        write_bin(root / 'training' / 'velodyne' / f'{index:06d}.bin', cloud(index))
        path = root / 'training' / 'calib' / f'{index:06d}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            _line('P2', kitti_projection(45.0))
            + _line('P3', kitti_projection(-340.0))
            + _line('R0_rect', np.eye(3))
            + _line('Tr_velo_to_cam', LIDAR2CAM[:3])
        )
    return root


class _AsPandas1:
    """Pickles as pandas 0.25 to 1.2 pickled what it stands for."""

    def __init__(self, module: str, name: str, args: tuple = (), state: object = None) -> None:
        self.global_, self.args, self.state = _Global(module, name), args, state

    def __reduce__(self):
        return (_call, (self.global_, *self.args), self.state)


class _Global:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


def _call(*args):
    raise AssertionError('only pickled')


class _Pickler(pickle._Pickler):
    """Writes ``_Global`` as the global that it names, and ``_call(f, ...)`` as ``f(...)``."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Global):
            self.write(pickle.GLOBAL + f'{obj.module}\n{obj.name}\n'.encode())
            return None
        return super().save(obj, save_persistent_id)

    def save_reduce(self, func, args, state=None, *rest, obj=None, **kwargs):
        if func is _call:
            func, args = args[0], args[1:]
            self.save(func)
            self.save(tuple(args))
            self.write(pickle.REDUCE)
            if state is not None:
                self.save(state)
                self.write(pickle.BUILD)
            return None
        return super().save_reduce(func, args, state, *rest, obj=obj, **kwargs)


def pandas1_frame(columns: dict[str, np.ndarray]) -> bytes:
    """A DataFrame as the pandas of PandaSet's publication pickled it."""
    import io

    def index(names):
        data = np.array(names, dtype=object)
        base = _Global('pandas.core.indexes.base', 'Index')
        return _AsPandas1(
            'pandas.core.indexes.base', '_new_Index', (base, {'data': data, 'name': None})
        )

    floats = [name for name, values in columns.items() if values.dtype == np.float64]
    ints = [name for name in columns if name not in floats]
    names = list(columns)
    blocks = [
        {
            'values': np.stack([columns[name] for name in group]),
            'mgr_locs': np.array([names.index(name) for name in group], dtype=np.int64),
        }
        for group in (floats, ints)
    ]
    axes = [index(names), None]
    state = (axes, [block['values'] for block in blocks], [None] * len(blocks),
             {'0.14.1': {'axes': axes, 'blocks': blocks}})  # fmt: skip
    manager = _AsPandas1('pandas.core.internals.managers', 'BlockManager', (), state)
    frame = _AsPandas1(
        'pandas.core.frame', 'DataFrame', (), {'_data': manager, '_typ': 'dataframe'}
    )
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=3).dump(frame)
    return buffer.getvalue()


def rotation(degrees: float) -> np.ndarray:
    """Quaternion w, x, y, z of a turn about z."""
    half = np.deg2rad(degrees) / 2
    return np.array([np.cos(half), 0.0, 0.0, np.sin(half)])


def write_pandaset(root: Path) -> Path:
    """One sequence of two instants; the car turns and drives between sweep and exposure."""
    from pyquaternion import Quaternion

    sequence = root / '001'
    camera, lidar = sequence / 'camera' / 'front_camera', sequence / 'lidar'
    lidar.mkdir(parents=True)

    def pose(matrix):
        q = Quaternion(matrix=matrix, atol=1e-6)
        return {
            'position': dict(zip('xyz', matrix[:3, 3].tolist(), strict=True)),
            'heading': dict(zip('wxyz', q.elements.tolist(), strict=True)),
        }

    sweep_poses, camera_poses = [], []
    for index in range(2):
        world = Quaternion(rotation(30.0 * (index + 1))).transformation_matrix
        world[:3, 3] = (100.0 + index, 20.0, 3.0)
        drive = np.eye(4)
        drive[0, 3] = 0.5
        sweep_poses.append(world)
        camera_poses.append(world @ drive @ np.linalg.inv(LIDAR2CAM))
        write_jpeg(camera / f'{index:02d}.jpg', index, WIDTH, HEIGHT)
        points = cloud(index).astype(np.float64)
        in_world = points[:, :3] @ world[:3, :3].T + world[:3, 3]
        sensor = np.zeros(len(points), dtype=np.int64)
        sensor[-50:] = 1  # the forward-looking LiDAR: left out
        columns = dict(
            x=in_world[:, 0], y=in_world[:, 1], z=in_world[:, 2], i=points[:, 3],
            t=np.zeros(len(points)), d=sensor,
        )  # fmt: skip
        with gzip.open(lidar / f'{index:02d}.pkl.gz', 'wb') as file:
            file.write(pandas1_frame(columns))
    fx, fy, cx, cy = INTRINSICS[0, 0], INTRINSICS[1, 1], INTRINSICS[0, 2], INTRINSICS[1, 2]
    (camera / 'intrinsics.json').write_text(json.dumps(dict(fx=fx, fy=fy, cx=cx, cy=cy)))
    (camera / 'poses.json').write_text(json.dumps([pose(matrix) for matrix in camera_poses]))
    (lidar / 'poses.json').write_text(json.dumps([pose(matrix) for matrix in sweep_poses]))
    (lidar / 'timestamps.json').write_text(json.dumps([10.0, 10.1]))
    return root
