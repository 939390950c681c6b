"""Logs inside containers, written with each format's own library: Arrow, Parquet, bags, videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from tests.nuscenes_tables import street, write_jpeg
from tests.test_data.test_formats.logs import HEIGHT, INTRINSICS, LIDAR2CAM, WIDTH, cloud

TIME = 1_700_000_000_000_000_000


def world_pose(index: int) -> np.ndarray:
    """Where the vehicle stands: it drives and turns."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('z', 10.0 * index, degrees=True).as_matrix()
    pose[:3, 3] = (50.0 + 2 * index, -7.0, 0.5)
    return pose


def _quaternion(pose: np.ndarray) -> dict[str, float]:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return dict(w=w, x=x, y=y, z=z)


def write_argoverse2(root: Path) -> Path:
    """One log, two sweeps; images 10 ms later, from another pose."""
    import pyarrow as pa
    from pyarrow import feather

    log = root / 'abcd'

    def write(path: Path, rows: list[dict[str, Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        feather.write_feather(pa.Table.from_pylist(rows), str(path))

    def row(pose: np.ndarray) -> dict[str, float]:
        q = _quaternion(pose)
        return {
            **{f'q{axis}': q[axis] for axis in 'wxyz'},
            **dict(zip(('tx_m', 'ty_m', 'tz_m'), pose[:3, 3].tolist(), strict=True)),
        }

    fx, fy, cx, cy = INTRINSICS[0, 0], INTRINSICS[1, 1], INTRINSICS[0, 2], INTRINSICS[1, 2]
    camera = dict(sensor_name='ring_front_center', fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
    write(log / 'calibration' / 'intrinsics.feather', [camera])
    extrinsic = dict(sensor_name='ring_front_center', **row(np.linalg.inv(LIDAR2CAM)))
    write(log / 'calibration' / 'egovehicle_SE3_sensor.feather', [extrinsic])
    poses = []
    for index in range(2):
        sweep, image = TIME + index * 10**8, TIME + index * 10**8 + 10**7
        poses.append(dict(timestamp_ns=sweep, **row(world_pose(index))))
        poses.append(dict(timestamp_ns=image, **row(world_pose(index + 1))))
        folder = log / 'sensors' / 'cameras' / 'ring_front_center'
        write_jpeg(folder / f'{image}.jpg', index, WIDTH, HEIGHT)
        points = cloud(index)
        table = pa.table(
            dict(
                x=pa.array(points[:, 0].astype(np.float16)),
                y=pa.array(points[:, 1].astype(np.float16)),
                z=pa.array(points[:, 2].astype(np.float16)),
                intensity=pa.array((points[:, 3] * 255).astype(np.uint8)),
            )
        )
        path = log / 'sensors' / 'lidar' / f'{sweep}.feather'
        path.parent.mkdir(parents=True, exist_ok=True)
        feather.write_feather(table, str(path))
    write(log / 'city_SE3_egovehicle.feather', poses)
    return root


def _jpeg(seed: int) -> bytes:
    return cv2.imencode('.jpg', street(seed, WIDTH, HEIGHT))[1].tobytes()


# Waymo's cameras look along x, with z up.
WAYMO_AXES = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
WAYMO_LENS = dict(k1=0.03, k2=-0.02, p1=0.0005, p2=-0.0003, k3=0.0)
BEAMS = np.deg2rad([-12.0, -7.5, -4.0, -1.0, 1.5])  # from the lowest up, not evenly spaced


def waymo_range_image(seed: int) -> np.ndarray:
    """(5, 360, 4) ranges, some without return."""
    random = np.random.RandomState(seed)
    image = random.uniform(3.0, 40.0, (len(BEAMS), 360, 4)).astype(np.float32)
    image[random.uniform(size=image.shape[:2]) < 0.2, 0] = -1.0
    return image


def write_waymo(root: Path, laser_pose: np.ndarray) -> Path:
    """One segment of two frames; every pixel of a sweep is taken from the frame's pose."""
    import pyarrow as pa
    from pyarrow import parquet

    def write(component: str, rows: list[dict[str, Any]]) -> None:
        path = root / component / 'segment.parquet'
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=1)

    fx, fy, cx, cy = INTRINSICS[0, 0], INTRINSICS[1, 1], INTRINSICS[0, 2], INTRINSICS[1, 2]
    intrinsic = dict(f_u=fx, f_v=fy, c_u=cx, c_v=cy, **WAYMO_LENS)
    camera = '[CameraCalibrationComponent]'
    cam2vehicle = np.linalg.inv(np.linalg.inv(WAYMO_AXES) @ LIDAR2CAM)
    write(
        'camera_calibration',
        [
            {
                'key.camera_name': 1,
                **{f'{camera}.intrinsic.{name}': value for name, value in intrinsic.items()},
                f'{camera}.extrinsic.transform': cam2vehicle.ravel().tolist(),
                f'{camera}.width': WIDTH,
                f'{camera}.height': HEIGHT,
            }
        ],
    )
    beams = '[LiDARCalibrationComponent]'
    write(
        'lidar_calibration',
        [
            {
                'key.laser_name': laser,
                f'{beams}.extrinsic.transform': laser_pose.ravel().tolist(),
                f'{beams}.beam_inclination.min': float(BEAMS[0]),
                f'{beams}.beam_inclination.max': float(BEAMS[-1]),
                f'{beams}.beam_inclination.values': BEAMS.tolist(),
            }
            for laser in (2, 1)
        ],
    )
    images, lidar, poses, vehicle = [], [], [], []
    for index in range(2):
        key = {'key.frame_timestamp_micros': 1000 + 100 * index}
        later = world_pose(index) @ np.array(
            [[1, 0, 0, 0.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]
        )
        name = '[CameraImageComponent]'
        images.append({**key, 'key.camera_name': 1, f'{name}.image': _jpeg(index),
                       f'{name}.pose.transform': later.ravel().tolist()})  # fmt: skip
        world = '[VehiclePoseComponent].world_from_vehicle.transform'
        vehicle.append({**key, world: world_pose(index).ravel().tolist()})
        image = waymo_range_image(index)
        pose = np.zeros((*image.shape[:2], 6), np.float32)
        pose[..., :3] = Rotation.from_matrix(world_pose(index)[:3, :3]).as_euler('xyz')
        pose[..., 3:] = world_pose(index)[:3, 3]
        for rows, prefix, values in (
            (lidar, '[LiDARComponent]', image), (poses, '[LiDARPoseComponent]', pose)
        ):  # fmt: skip
            prefix += '.range_image_return1'
            rows.append({**key, 'key.laser_name': 1, f'{prefix}.values': values.ravel().tolist(),
                         f'{prefix}.shape': list(values.shape)})  # fmt: skip
    for component, rows in (
        ('camera_image', images), ('vehicle_pose', vehicle), ('lidar', lidar), ('lidar_pose', poses)
    ):  # fmt: skip
        write(component, rows)
    return root


def write_bag(path: Path, *, storage: str = 'sqlite3', moving: bool = False) -> Path:
    """A ROS 2 bag of 2 s: 10 sweeps, images 20 ms later; raw ones on a second camera."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types

    def make(kind: str, /, **fields: Any) -> Any:
        return types[kind](**fields)

    def stamp(time: int) -> Any:
        return make('builtin_interfaces/msg/Time', sec=time // 10**9, nanosec=time % 10**9)

    def header(time: int, frame: str) -> Any:
        return make('std_msgs/msg/Header', stamp=stamp(time), frame_id=frame)

    def transform(time: int, parent: str, child: str, pose: np.ndarray) -> Any:
        t, q = pose[:3, 3], _quaternion(pose)
        body = make(
            'geometry_msgs/msg/Transform',
            translation=make('geometry_msgs/msg/Vector3', x=t[0], y=t[1], z=t[2]),
            rotation=make('geometry_msgs/msg/Quaternion', **q),
        )
        return make(
            'geometry_msgs/msg/TransformStamped',
            header=header(time, parent), child_frame_id=child, transform=body,
        )  # fmt: skip

    lidar2base = np.eye(4)
    lidar2base[:3, 3] = (1.0, 0.0, 1.8)
    cam2base = lidar2base @ np.linalg.inv(LIDAR2CAM)
    plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}

        def write(topic: str, msgtype: str, time: int, message: Any) -> None:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, msgtype, typestore=store)
            writer.write(connections[topic], time, store.serialize_cdr(message, msgtype))

        tf = 'tf2_msgs/msg/TFMessage'
        static = [
            transform(TIME, 'base_link', 'lidar', lidar2base),
            transform(TIME, 'base_link', 'camera', cam2base),
        ]
        write('/tf_static', tf, TIME, make(tf, transforms=static))
        roi = make('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0,
                   do_rectify=False)  # fmt: skip
        info = make(
            'sensor_msgs/msg/CameraInfo', header=header(TIME, 'camera'), height=HEIGHT, width=WIDTH,
            distortion_model='plumb_bob', d=np.array([-0.1, 0.02, 0.0, 0.0, 0.0]),
            k=INTRINSICS.ravel(), r=np.eye(3).ravel(),
            p=np.c_[INTRINSICS, np.zeros(3)].ravel(), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip
        write('/front/camera_info', 'sensor_msgs/msg/CameraInfo', TIME, info)
        for index in range(10):
            time = TIME + index * 2 * 10**8
            if moving:
                pose = world_pose(0)
                pose[0, 3] += index * 0.2
                message = make(tf, transforms=[transform(time, 'odom', 'base_link', pose)])
                write('/tf', tf, time, message)
            points = cloud(index)
            fields = [
                make('sensor_msgs/msg/PointField', name=name, offset=4 * i, datatype=7, count=1)
                for i, name in enumerate(('x', 'y', 'z', 'intensity'))
            ]
            message = make(
                'sensor_msgs/msg/PointCloud2', header=header(time, 'lidar'), height=1,
                width=len(points), fields=fields, is_bigendian=False, point_step=16,
                row_step=16 * len(points), data=points.reshape(-1).view(np.uint8), is_dense=True,
            )  # fmt: skip
            write('/lidar', 'sensor_msgs/msg/PointCloud2', time, message)
            later = time + 2 * 10**7
            message = make('sensor_msgs/msg/CompressedImage', header=header(later, 'camera'),
                           format='jpeg', data=np.frombuffer(_jpeg(index), np.uint8))  # fmt: skip
            kind = 'sensor_msgs/msg/CompressedImage'
            write('/front/image_raw/compressed', kind, later, message)
            pixels = cv2.cvtColor(street(index, WIDTH, HEIGHT), cv2.COLOR_BGR2RGB)
            message = make(
                'sensor_msgs/msg/Image', header=header(later, 'rear'), height=HEIGHT, width=WIDTH,
                encoding='rgb8', is_bigendian=0, step=3 * WIDTH, data=pixels.reshape(-1),
            )  # fmt: skip
            write('/rear/image_raw', 'sensor_msgs/msg/Image', later, message)
    return path


def write_video(path: Path, frames: int = 30, rate: int = 10) -> Path:
    """A video whose frames tell their number by their brightness."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 96, 'yuv420p', 10**6
        for index in range(frames):
            pixels = np.full((96, 160, 3), 10 + 8 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24')))
        container.mux(stream.encode())
    return path
