"""Cityscapes folders: photos, label numbers and training numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s3pt_mm.toydrive import taxonomy as tx
from s3pt_mm.toydrive.config import ToyDriveConfig
from s3pt_mm.toydrive.frames import generator, get_world, time_of_frame, world_of_frame
from s3pt_mm.toydrive.rendering import render
from s3pt_mm.toydrive.sensors import cityscapes_camera
from s3pt_mm.toydrive.tables import write_image
from s3pt_mm.toydrive.tracing import Instant

IGNORED = 255


def train_ids() -> np.ndarray:
    """(256,) uint8: training number of each label number, 255 where it is ignored."""
    table = np.full(256, IGNORED, dtype=np.uint8)
    for label, number in tx.TRAIN_IDS.items():
        table[label] = number
    return table


def capture(config: ToyDriveConfig, root: Path, split: str, frame: int) -> None:
    """Write one photo and its two label images."""
    index = world_of_frame(config, split, frame)
    world = get_world(config, index)
    seconds = time_of_frame(config, world, frame, 'cityscapes', split)
    camera = cityscapes_camera(generator(config, 'cityscapes vehicle', split, frame))
    photo = render(
        Instant(world, seconds, with_ego=True, camera_rotation=camera.rotation), camera,
        scale=config.image_scale, rng=generator(config, 'camera', 'cityscapes', split, frame),
    )  # fmt: skip
    city = f'toytown{index:05d}'
    stem = f'{city}_{frame:06d}_000019'
    labels = photo.enlarged(photo.labels)
    write_image(root / 'leftImg8bit' / split / city / f'{stem}_leftImg8bit.png', photo.image)
    truth = root / 'gtFine' / split / city
    write_image(truth / f'{stem}_gtFine_labelIds.png', labels)
    write_image(truth / f'{stem}_gtFine_labelTrainIds.png', train_ids()[labels])
