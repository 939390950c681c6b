"""What a ToyDrive is made of: one frozen dataclass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

OUTPUTS = ('nuscenes', 'nuimages', 'cityscapes')
WEATHERS = ('day', 'night', 'fog', 'mix')

# The devkit's ten mini scenes. The order is ours: whatever number of scenes is asked for, two or
# more give both a train and a val split (scene-0103 and scene-0916 are the devkit's mini_val).
SCENE_NAMES = (
    'scene-0061', 'scene-0103', 'scene-0553', 'scene-0655', 'scene-0757',
    'scene-0796', 'scene-0916', 'scene-1077', 'scene-1094', 'scene-1100',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ToyDriveConfig:
    """Size and look of a generated data set. Everything but ``workers`` changes the bytes.

    Args:
        seed: Seed of every world, sensor and noise value.
        outputs: Which of ``nuscenes``, ``nuimages`` and ``cityscapes`` are written.
        scenes: nuScenes scenes, 1 to 10 (the devkit's mini names; 2 or more have a val split).
        samples_per_scene: Key frames of a scene, half a second apart.
        sweeps: LiDAR sweeps between two key frames.
        camera_sweep_scenes: The first so many scenes also get one image of each camera half-way
            between two key frames.
        nuimages_train: Annotated nuImages frames in ``v1.0-train``.
        nuimages_val: Annotated nuImages frames in ``v1.0-val``.
        cityscapes_train: Cityscapes frames in ``train``.
        cityscapes_val: Cityscapes frames in ``val``.
        frames_per_world: nuImages or Cityscapes frames taken in one world before the next is
            built. The first ten worlds are those of the nuScenes scenes; train and val never
            share a world.
        image_scale: Shading resolution over file resolution, in (0, 1]. Images and masks are
            enlarged to the file's size, so geometry does not depend on it. 1 shades every pixel.
        weather: ``day``, ``night``, ``fog``, or ``mix`` (world by world).
        density: Number of things in a street, relative to the default. Each kind that a split
            must have stays at any density.
        jpeg_quality: Of every camera image.
        workers: Processes; 0 means one for each core. Does not change a byte.

    Raises:
        ValueError: If a value is out of its range; the message names field, value and range.
    """

    seed: int = 0
    outputs: tuple[str, ...] = OUTPUTS
    scenes: int = 10
    samples_per_scene: int = 8
    sweeps: int = 1
    camera_sweep_scenes: int = 1
    nuimages_train: int = 512
    nuimages_val: int = 32
    cityscapes_train: int = 48
    cityscapes_val: int = 24
    frames_per_world: int = 2
    image_scale: float = 0.25
    weather: str = 'day'
    density: float = 1.0
    jpeg_quality: int = 88
    workers: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, 'outputs', tuple(self.outputs))
        unknown = sorted(set(self.outputs) - set(OUTPUTS))
        if unknown or not self.outputs:
            raise ValueError(f'outputs={self.outputs!r}: choose from {OUTPUTS}')
        if self.weather not in WEATHERS:
            raise ValueError(f'weather={self.weather!r}: choose from {WEATHERS}')
        limits = dict(
            seed=(0, 2**31 - 1),
            scenes=(1, len(SCENE_NAMES)),
            samples_per_scene=(2, 40),
            sweeps=(0, 9),
            camera_sweep_scenes=(0, len(SCENE_NAMES)),
            nuimages_train=(1, 100_000),
            nuimages_val=(1, 100_000),
            cityscapes_train=(1, 100_000),
            cityscapes_val=(1, 100_000),
            frames_per_world=(1, 1000),
            image_scale=(0.1, 1.0),
            density=(0.1, 3.0),
            jpeg_quality=(1, 100),
            workers=(0, 1024),
        )
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f'{name}={value!r}: must lie in [{low}, {high}]')

    @classmethod
    def tiny(cls, **changes: Any) -> ToyDriveConfig:
        """The smallest useful set: two scenes (train and val) of two key frames, low resolution."""
        return cls(
            **{
                **dict(
                    scenes=2,
                    samples_per_scene=2,
                    sweeps=1,
                    camera_sweep_scenes=1,
                    nuimages_train=4,
                    nuimages_val=2,
                    cityscapes_train=2,
                    cityscapes_val=2,
                    frames_per_world=2,
                    image_scale=0.2,
                    density=0.6,
                    workers=1,
                ),
                **changes,
            }
        )

    def content(self) -> dict[str, Any]:
        """Everything that determines the bytes: the fields without ``workers``."""
        fields = asdict(self)
        del fields['workers']
        fields['outputs'] = sorted(self.outputs)
        return fields
