"""The tree of frames of a bag: extrinsics and poses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.geometry import invert, rigid


class FrameTree:
    """Transforms of ``/tf_static``, and of ``/tf`` where a moving frame is asked for.

    Args:
        bag: For messages.
        messages: (topic, TFMessage) of the whole bag.
        world: Fixed frame through which two instants meet; None for rigid sensors alone.
        base: The vehicle's frame.
    """

    def __init__(
        self, bag: Path, messages: Iterable[tuple[str, Any]], world: str | None, base: str
    ) -> None:
        self.bag, self.world, self.base = bag, world, base
        self._static: dict[str, tuple[str, np.ndarray]] = {}
        moving: dict[tuple[str, str], list[tuple[int, np.ndarray]]] = {}
        for topic, message in messages:
            for item in message.transforms:
                child, parent = item.child_frame_id, item.header.frame_id
                t, q = item.transform.translation, item.transform.rotation
                pose = rigid((q.w, q.x, q.y, q.z), (t.x, t.y, t.z))
                if topic.endswith('tf_static'):
                    self._static[child] = (parent, pose)
                elif (parent, child) == (world, base):
                    stamp = item.header.stamp
                    nanoseconds = stamp.sec * 10**9 + stamp.nanosec
                    moving.setdefault((parent, child), []).append((nanoseconds, pose))
        self._pose = _interpolator(next(iter(moving.values()), []))

    def between(self, source: str, source_time: int, target: str, target_time: int) -> np.ndarray:
        """(4, 4) source frame at its time -> target frame at its time.

        Raises:
            DataError: The tree does not connect the two.
        """
        source_root, source_pose = self._to_root(source)
        target_root, target_pose = self._to_root(target)
        if source_root != target_root:
            raise DataError(
                self.bag,
                f'/tf_static does not connect {source!r} (root {source_root!r}) '
                f'and {target!r} (root {target_root!r})',
                'Record /tf_static, or write the extrinsics into a calibration file and use the '
                'folder format',
            )
        if not self.world:
            return invert(target_pose) @ source_pose
        if self._pose is None:
            raise DataError(
                self.bag,
                f'/tf has no transform {self.world!r} -> {self.base!r}',
                'Check --world-frame and --base-frame, or leave them out',
            )
        _, root2base = self._to_root(self.base)
        poses = [self._pose(time) @ invert(root2base) for time in (source_time, target_time)]
        return invert(poses[1] @ target_pose) @ poses[0] @ source_pose

    def _to_root(self, frame: str) -> tuple[str, np.ndarray]:
        pose, visited = np.eye(4), {frame}
        while frame in self._static:
            frame, step = self._static[frame]
            pose = step @ pose
            if frame in visited:
                raise DataError(self.bag, f'/tf_static goes round at {frame!r}', 'Correct it')
            visited.add(frame)
        return frame, pose


def _interpolator(
    stamped: list[tuple[int, np.ndarray]],
) -> Callable[[int], np.ndarray] | None:
    """Pose at a time: positions linearly, rotations by slerp, held at the ends."""
    if not stamped:
        return None
    times, first = np.unique([time for time, _ in stamped], return_index=True)
    poses = np.stack([stamped[index][1] for index in first])
    seconds = (times - times[0]) * 1e-9
    turns = Slerp(seconds, Rotation.from_matrix(poses[:, :3, :3])) if len(times) > 1 else None

    def at(time: int) -> np.ndarray:
        second = np.clip((time - times[0]) * 1e-9, 0.0, seconds[-1])
        pose = poses[0].copy()
        if turns is not None:
            pose[:3, :3] = turns(second).as_matrix()
            pose[:3, 3] = [np.interp(second, seconds, poses[:, axis, 3]) for axis in range(3)]
        return pose

    return at
