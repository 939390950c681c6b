"""ROS 1 and ROS 2 bags (``.bag``, ``.db3``, MCAP), through the rosbags library, without ROS."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep
from s3pt_mm.data.formats.ros_frames import FrameTree
from s3pt_mm.data.formats.ros_messages import cloud_points, encode_image

_MESSAGE = 'sensor_msgs/msg/'
_LENSES = {'plumb_bob': 'brown', 'rational_polynomial': 'brown', 'equidistant': 'fisheye'}


class RosBag(LogFormat):
    """Images, camera infos, one point cloud topic and the tree of frames of a bag.

    Every sweep (without LiDAR: every image of the first camera) is paired with the images nearest
    in time. LiDAR and cameras meet through ``/tf_static``; with ``--world-frame`` also through the
    vehicle's pose at both instants, interpolated from ``/tf``.
    """

    help = 'ROS 1 or ROS 2 bag: .bag, .db3, .mcap or the folder of a ROS 2 bag'

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """See the base class."""
        parser.add_argument('--lidar-topic', help='default: the only PointCloud2 topic')
        parser.add_argument('--image-topics', nargs='+', help='default: all of them')
        parser.add_argument(
            '--every', type=float, default=0.5, help='seconds between samples (%(default)s)'
        )
        parser.add_argument(
            '--tolerance', type=float, default=0.06, help='seconds between sweep and image'
        )
        parser.add_argument('--world-frame', help='e.g. odom or map: use poses of /tf')
        parser.add_argument('--base-frame', default='base_link', help='vehicle (%(default)s)')

    def samples(self) -> Iterator[Sample]:
        """See the base class."""
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise DataError(
                self.root, f'reading it needs {error.name}', 'pip install "s3pt_mm[formats]"'
            ) from error
        if not self.root.exists():
            raise DataError(self.root, 'no such bag', 'Check the path')
        try:
            store = get_typestore(Stores.ROS2_HUMBLE)
            self._reader = AnyReader([self.root], default_typestore=store)
            self._reader.open()
        except Exception as error:  # the library's own, of each storage
            raise DataError(
                self.root,
                f'not a readable bag of ROS messages ({type(error).__name__}: {error})',
                'ROS 1, ROS 2 and MCAP with ROS 2 messages are read; a torn bag needs '
                '`ros2 bag reindex` or `rosbag reindex`',
            ) from error
        return self._samples()

    def _samples(self) -> Iterator[Sample]:
        cameras = self._topics('Image', 'CompressedImage', chosen=self.options.image_topics)
        if not cameras:
            raise DataError(self.root, 'no image topic in it', f'Topics: {self._all_topics()}')
        lidar = self._lidar_topic()
        times = {topic: self._times(topic) for topic in (*cameras, *([lidar] if lidar else []))}
        if lidar and len(times[lidar]):
            self._lidar_frame = self.read(lidar, int(times[lidar][0])).header.frame_id
        infos = self._camera_infos(cameras)
        tree = FrameTree(
            self.root,
            self.messages('tf2_msgs/msg/TFMessage'),
            self.options.world_frame,
            self.options.base_frame,
        )
        lead = lidar or min(cameras)
        tolerance = self.options.tolerance
        for time in spaced(times[lead], self.options.every):
            images = {}
            for topic in cameras:
                near = _nearest(times[topic], time, tolerance)
                if near is not None:
                    images[_name(topic)] = self._image(
                        topic, near, infos.get(topic), (lidar, time), tree
                    )
            if images:
                yield Sample(
                    token=f'{self.root.stem}_{time}',
                    sequence=self.root.stem,
                    images=images,
                    sweep=Sweep(points=lambda time=time: cloud_points(self.read(lidar, time)))
                    if lidar
                    else None,
                    timestamp=time * 1e-9,
                    container=self.root,
                )

    def _image(
        self, topic: str, time: int, info: Any, lidar: tuple[str | None, int], tree: FrameTree
    ) -> CameraImage:
        image = CameraImage(encoded=lambda: encode_image(self.read(topic, time), topic))
        if info is None:
            return image
        rectified = 'rect' in topic.rsplit('/', 2)[-2 if topic.endswith('compressed') else -1]
        image.size = (info.width, info.height)
        matrix, coefficients = (_field(info, name) for name in ('k', 'd'))
        image.cam2img = np.reshape(_field(info, 'p') if rectified else matrix, (3, -1))
        if not rectified and np.any(coefficients):
            model = _LENSES.get(info.distortion_model, info.distortion_model)
            image.distortion = dict(model=model, coefficients=np.asarray(coefficients).tolist())
        if lidar[0]:
            image.lidar2cam = tree.between(
                self._lidar_frame, self._stamp(*lidar), info.header.frame_id,
                self._stamp(topic, time),
            )  # fmt: skip
        return image

    def read(self, topic: str, time: int) -> Any:
        """The message of a topic that was recorded at a time (nanoseconds)."""
        connections = [c for c in self._reader.connections if c.topic == topic]
        for connection, _, data in self._reader.messages(connections, time, time + 1):
            return self._reader.deserialize(data, connection.msgtype)
        raise DataError(self.root, f'no message of {topic} at {time}', 'Reindex the bag')

    def messages(self, *msgtypes: str) -> Iterator[tuple[str, Any]]:
        """(topic, message) of all topics of some types."""
        chosen = [c for c in self._reader.connections if c.msgtype in msgtypes]
        for connection, _, data in self._reader.messages(chosen) if chosen else ():
            yield connection.topic, self._reader.deserialize(data, connection.msgtype)

    def _stamp(self, topic: str, time: int) -> int:
        """When a message was measured, which is before it was recorded; only poses care."""
        if not self.options.world_frame:
            return time
        stamp = self.read(topic, time).header.stamp
        return stamp.sec * 10**9 + stamp.nanosec

    def _topics(self, *kinds: str, chosen: Sequence[str] | None = None) -> list[str]:
        wanted = {_MESSAGE + kind for kind in kinds}
        found = sorted({c.topic for c in self._reader.connections if c.msgtype in wanted})
        absent = sorted(set(chosen or ()) - set(found))
        if absent:
            raise DataError(self.root, f'no topic {absent}', f'Topics: {self._all_topics()}')
        return [topic for topic in found if not chosen or topic in chosen]

    def _all_topics(self) -> str:
        return ', '.join(sorted(f'{c.topic} ({c.msgtype})' for c in self._reader.connections))

    def _lidar_topic(self) -> str | None:
        chosen = self.options.lidar_topic
        found = self._topics('PointCloud2', chosen=[chosen] if chosen else None)
        if len(found) > 1:
            raise DataError(self.root, f'point cloud topics {found}', 'Choose with --lidar-topic')
        return found[0] if found else None

    def _camera_infos(self, cameras: Sequence[str]) -> dict[str, Any]:
        """First CameraInfo beside each image topic (same namespace)."""
        infos: dict[str, Any] = {}
        for topic, message in self.messages(_MESSAGE + 'CameraInfo'):
            namespace = topic.rsplit('/', 1)[0]
            for camera in cameras:
                if camera.startswith(f'{namespace}/'):
                    infos.setdefault(camera, message)
            if len(infos) == len(cameras):
                break
        return infos

    def _times(self, topic: str) -> np.ndarray:
        connections = [c for c in self._reader.connections if c.topic == topic]
        return np.array([time for _, time, _ in self._reader.messages(connections)])


def spaced(times: np.ndarray, every: float) -> Iterator[int]:
    """Times (nanoseconds, ascending) at least ``every`` seconds apart."""
    last = None
    for time in times.tolist():
        if last is None or time - last >= every * 1e9 - 1e6:
            last = time
            yield time


def _nearest(times: np.ndarray, time: int, tolerance: float) -> int | None:
    if not len(times):
        return None
    near = int(times[np.abs(times - time).argmin()])
    return near if abs(near - time) <= tolerance * 1e9 else None


def _name(topic: str) -> str:
    """A camera's name from its topic: /camera/front/image_raw/compressed -> camera_front."""
    parts = [part for part in topic.split('/') if part and part != 'compressed']
    return '_'.join(parts[:-1] or parts)


def _field(message: Any, name: str) -> Any:
    """A matrix of CameraInfo: ROS 2 writes k, d, p, ROS 1 K, D, P."""
    return getattr(message, name) if hasattr(message, name) else getattr(message, name.upper())
