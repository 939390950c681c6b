"""Which world, instant and camera each written frame shows; the same whoever asks."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np

from s3pt_mm.toydrive.config import SCENE_NAMES, ToyDriveConfig
from s3pt_mm.toydrive.world import VAL_SCENES, World, build_world

_VAL_EXTRA = 10_000  # number of the first world that only val frames show
_worlds: OrderedDict[str, World] = OrderedDict()


def token(config: ToyDriveConfig, *key: object) -> str:
    """A 32-digit record token that depends on seed and key alone."""
    text = '/'.join(str(part) for part in ('toydrive', config.seed, *key))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def generator(config: ToyDriveConfig, *key: object) -> np.random.Generator:
    """A random generator of its own for one frame or sensor."""
    return np.random.default_rng(int(token(config, 'rng', *key), 16))


def get_world(config: ToyDriveConfig, index: int) -> World:
    """World ``index``, kept for the next call of this process."""
    key = f'{config.content()}/{index}'
    if key not in _worlds:
        while len(_worlds) >= 2:
            _worlds.popitem(last=False)
        _worlds[key] = build_world(config, index)
    return _worlds[key]


def world_of_frame(config: ToyDriveConfig, split: str, frame: int) -> int:
    """World of a nuImages or Cityscapes frame: the split's scenes first, then more."""
    number = frame // config.frames_per_world
    own = [i for i, name in enumerate(SCENE_NAMES) if (name in VAL_SCENES) == (split == 'val')]
    if number < len(own):
        return own[number]
    extra = number - len(own)
    return (_VAL_EXTRA if split == 'val' else len(SCENE_NAMES)) + extra


def time_of_frame(config: ToyDriveConfig, world: World, frame: int, *key: object) -> float:
    """Seconds of a frame, drawn in its own part of the recording."""
    part = frame % config.frames_per_world
    draw = generator(config, 'time', *key, frame).uniform(0.05, 0.95)
    seconds = (part + draw) * (world.duration - 0.2) / config.frames_per_world + 0.1
    return round(seconds, 6)
