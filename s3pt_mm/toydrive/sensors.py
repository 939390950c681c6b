"""Cameras, LiDAR, where they sit, and when each of them fires."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s3pt_mm.toydrive.shapes import rotation_z
from s3pt_mm.toydrive.tracing import Instant

LIDAR = 'LIDAR_TOP'
CAMERAS = (
    'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_FRONT_LEFT',
)  # fmt: skip

# Seconds between the LiDAR's reference instant and a camera's exposure: the mirror sweeps past the
# cameras one after the other, so the front left one is oldest. Order of magnitude as in nuScenes.
CAMERA_DELAY = {
    'CAM_FRONT_LEFT': -0.043, 'CAM_FRONT': -0.0355, 'CAM_FRONT_RIGHT': -0.0277,
    'CAM_BACK_RIGHT': -0.020, 'CAM_BACK': -0.0105, 'CAM_BACK_LEFT': -0.0007,
}  # fmt: skip
KEY_INTERVAL = 0.5  # seconds between key frames

# Camera: position in the ego frame (m), yaw and pitch (degrees), focal length and centre (pixels).
_RIG = {
    'CAM_FRONT': ((1.70, 0.02, 1.51), 0.0, -0.3, 1266.0, (816.0, 491.0)),
    'CAM_FRONT_RIGHT': ((1.55, -0.49, 1.50), -56.0, -0.2, 1261.0, (808.0, 495.0)),
    'CAM_FRONT_LEFT': ((1.52, 0.49, 1.51), 55.5, 0.1, 1272.0, (827.0, 480.0)),
    'CAM_BACK': ((0.03, 0.00, 1.58), 180.0, 0.4, 809.0, (829.0, 482.0)),
    'CAM_BACK_LEFT': ((1.04, 0.48, 1.59), 108.5, 0.5, 1257.0, (792.0, 493.0)),
    'CAM_BACK_RIGHT': ((1.01, -0.48, 1.56), -110.5, 0.3, 1260.0, (807.0, 501.0)),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Camera:
    """A pinhole camera on the ego car.

    Args:
        name: Channel.
        translation: (3,) position in the ego frame.
        rotation: (3, 3) camera axes (x right, y down, z forward) in the ego frame.
        intrinsic: (3, 3) in pixels; pixel centres lie at integer + 0.5.
        width: Of the image file, pixels.
        height: Of the image file, pixels.
    """

    name: str
    translation: np.ndarray
    rotation: np.ndarray
    intrinsic: np.ndarray
    width: int
    height: int

    def rays(self, width: int, height: int) -> np.ndarray:
        """(height * width, 3) float32 unit directions, camera frame, through a coarser grid."""
        x = (np.arange(width) + 0.5) * (self.width / width)
        y = (np.arange(height) + 0.5) * (self.height / height)
        f, cx, cy = self.intrinsic[0, 0], self.intrinsic[0, 2], self.intrinsic[1, 2]
        xx, yy = np.meshgrid((x - cx) / f, (y - cy) / f)
        rays = np.stack([xx, yy, np.ones_like(xx)], axis=-1).reshape(-1, 3)
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        return rays.astype(np.float32)


def _axes(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Camera axes in the ego frame; angles in degrees, yaw to the left, pitch upwards."""
    y, p, r = np.radians([yaw, pitch, roll])
    base = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # camera looking along ego x
    up = np.array([[np.cos(p), 0, -np.sin(p)], [0, 1, 0], [np.sin(p), 0, np.cos(p)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    return rotation_z(y) @ up @ tilt @ base


# How far a car's mounting strays from the nominal one: cars are low or tall, and what looks level
# on one looks up or down on another. Without it the horizon has one row and place gives road, sky
# and houses away.
_LIFT = (-0.3, 0.9)  # metres, all cameras of a car
_PITCH, _ROLL = (-10.0, 5.0), (-5.0, 5.0)  # degrees, each camera by itself


def camera_rig(rng: np.random.Generator) -> dict[str, Camera]:
    """The six cameras of one car: the nominal places, lifted, tilted and turned as on no other."""
    rig = {}
    lift = rng.uniform(*_LIFT)
    for name in CAMERAS:
        place, yaw, pitch, focal, centre = _RIG[name]
        focal = focal + rng.uniform(-8, 8)
        cx, cy = centre[0] + rng.uniform(-12, 12), centre[1] + rng.uniform(-8, 8)
        rig[name] = Camera(
            name=name,
            translation=np.asarray(place) + [0, 0, lift] + rng.uniform(-0.02, 0.02, 3),
            rotation=_axes(
                yaw + rng.uniform(-4, 4),
                pitch + rng.uniform(*_PITCH),
                rng.uniform(*_ROLL),
            ),
            intrinsic=np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]]),
            width=1600,
            height=900,
        )
    return rig


def cityscapes_camera(rng: np.random.Generator) -> Camera:
    """The single 2048 x 1024 front camera of a Cityscapes-like car, mounted as on no other."""
    lift = [0, 0, rng.uniform(*_LIFT)]
    return Camera(
        name='leftImg8bit',
        translation=np.array([1.70, 0.1, 1.5]) + lift + rng.uniform(-0.02, 0.02, 3),
        rotation=_axes(
            rng.uniform(-4, 4), rng.uniform(-5, 3), rng.uniform(*_ROLL)
        ),  # narrower than the others
        intrinsic=np.array([[2262.5, 0, 1096.98], [0, 2262.5, 513.14], [0, 0, 1.0]]),
        width=2048,
        height=1024,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Lidar:
    """A spinning LiDAR of 32 beams.

    Args:
        translation: (3,) position in the ego frame.
        rotation: (3, 3) LiDAR axes (x right, y forward, z up) in the ego frame.
        azimuths: Firings a turn.
        reach: Largest distance of a return, metres.
    """

    translation: np.ndarray
    rotation: np.ndarray
    azimuths: int = 1084
    reach: float = 100.0

    @property
    def elevations(self) -> np.ndarray:
        """(32,) beam angles from lowest to highest, radians: -30.67 to 10.67 degrees."""
        return np.radians(np.linspace(-30.67, 10.67, 32))

    def sweep(
        self, instant: Instant, position: np.ndarray, rotation: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """One turn, taken as instantaneous (nuScenes sweeps are compensated for ego motion).

        Args:
            instant: The world at the sweep's time.
            position: (3,) ego position.
            rotation: (3, 3) ego rotation.
            rng: Source of range noise and lost returns.

        Returns:
            (P, 5) float32: x, y, z in the LiDAR frame (m), intensity (0 to 255) and ring (0 to 31).
            A beam that meets nothing within reach gives no row.
        """
        turn = np.linspace(0, 2 * np.pi, self.azimuths, endpoint=False)
        turn = turn + rng.uniform(0, 2 * np.pi / self.azimuths)
        elevation, azimuth = np.meshgrid(self.elevations, turn)
        ring = np.broadcast_to(np.arange(32), elevation.shape).reshape(-1)
        own = np.stack(
            [
                np.cos(elevation) * np.sin(azimuth),
                np.cos(elevation) * np.cos(azimuth),
                np.sin(elevation),
            ],
            axis=-1,
        ).reshape(-1, 3)
        world = own @ (rotation @ self.rotation).T
        hits = instant.trace(position + rotation @ self.translation, world)
        table = instant.world.materials
        facing = np.abs((hits.normal * world).sum(1))
        albedo = table[np.maximum(hits.material, 0), :3].mean(1)
        intensity = np.clip(255 * (0.05 + 0.6 * albedo) * np.sqrt(facing), 0, 255)
        noise = rng.normal(0, 0.015, len(own))
        # Weak echoes get lost: far, dark or grazing surfaces first.
        strength = (0.15 + albedo) * (0.1 + facing) * (60.0 / np.maximum(hits.distance, 1.0)) ** 2
        kept = (
            (hits.distance < self.reach)
            & (hits.distance > 1.0)
            & (rng.uniform(size=len(own)) < np.clip(strength * 8, 0.0, 0.995))
        )
        distance = (hits.distance + noise)[kept]
        return np.concatenate(
            [
                own[kept] * distance[:, None],
                np.floor(intensity[kept])[:, None],
                ring[kept][:, None],
            ],
            axis=1,
        ).astype(np.float32)


def lidar_top(rng: np.random.Generator) -> Lidar:
    """The roof LiDAR of one car."""
    small = rng.uniform(-0.006, 0.006, 2)
    tilt = np.array([[1, -0.0, small[0]], [0, 1, -small[1]], [-small[0], small[1], 1]])
    u, _, v = np.linalg.svd(tilt)
    return Lidar(
        translation=np.array([0.94, 0.0, 1.84]) + rng.uniform(-0.01, 0.01, 3),
        rotation=(u @ v) @ rotation_z(-np.pi / 2),
    )
