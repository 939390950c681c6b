"""Where evidence comes from: folders on disk as pre-training images and labelled splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import write_bytes
from s3pt_mm.data.class_sets import IGNORE, NUIMAGES_7, ClassSet
from s3pt_mm.data.datasets import write_info_file
from s3pt_mm.data.labelled_images import LabelledImages

VIEW = (160, 160)  # pixels of a crop that probes look at
Most = tuple[int | None, int | None]
IMAGES: Most = (64, 32)  # labelled images at most, train and val


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        name: In tables and folders.
        pretraining: The ``dataset`` of a pre-training config, without its pipeline.
        train: Labelled images that probes learn from.
        val: Labelled images that they are judged by.
        labelled: All labelled training images: what the supervised bound learns from.
        has_depth: Whether LiDAR comes with the images.
    """

    name: str
    pretraining: dict[str, Any]
    train: LabelledImages
    val: LabelledImages
    labelled: LabelledImages
    has_depth: bool


def _classes(name: str, members: dict[str, tuple[int, ...]], known: int) -> ClassSet:
    labels = dict.fromkeys((*range(known + 1), IGNORE), IGNORE)
    for label, raw in enumerate(members.values()):
        labels.update(dict.fromkeys(raw, label))
    grey = tuple((8 * index,) * 3 for index in range(len(members)))
    return ClassSet(name, tuple(members), grey, labels)


def toydrive(root: Path, cache: Path, most: Most = IMAGES) -> Source:
    """A ToyDrive with its info files and masks (``tools/dev/make_demo.py`` makes them)."""

    def split(name: str, most: int | None) -> LabelledImages:
        return LabelledImages.from_nuimages(
            root / f'nuimages/nuimages_{name}.json',
            class_set=NUIMAGES_7,
            image_size=VIEW,
            max_images=most,
        )

    info = root / 'nuscenes/nuscenes_infos_train.parquet'
    if not info.is_file():
        raise DataError(info, 'no such file', 'Run tools/dev/make_demo.py or tools/create_data.py')
    pretraining = dict(
        type='NuScenesImages', data_root=f'{root.resolve()}/nuscenes/', ann_file=info.name
    )
    splits = split('train', most[0]), split('val', most[1]), split('train', None)
    return Source('toydrive', pretraining, *splits, has_depth=True)


def camvid(root: Path, cache: Path, most: Most = IMAGES) -> Source:
    """CamVid as ``images/<split>/*.jpg``, ``masks/<split>/*.png`` and ``classes.json`` (a list)."""
    names = json.loads((root / 'classes.json').read_text())
    members = {name: (index,) for index, name in enumerate(names)}
    classes = _classes('camvid11', members, known=len(names) - 1)

    def split(name: str, most: int | None) -> LabelledImages:
        images = sorted((root / 'images' / name).iterdir())
        pairs = [(image, root / 'masks' / name / f'{image.stem}.png') for image in images]
        return LabelledImages(pairs, class_set=classes, image_size=VIEW, max_images=most)

    pretraining = dict(type='ImageFolderDataset', data_root=str((root / 'images/train').resolve()))
    splits = split('train', most[0]), split('val', most[1]), split('train', None)
    return Source('camvid', pretraining, *splits, has_depth=False)


_PANDASET = {
    'road': (6, 7, 8, 9, 10, 12),
    'sidewalk': (11,),
    'vegetation': (5,),
    'building': (41,),
    'car': (13, 14),
    'large vehicle': (15, 16, 17, 19, 20, 22, 23, 27, 28, 29),
    'pedestrian or two-wheeler': (18, 24, 25, 26, 30, 31),
    'other thing': (34, 35, 36, 37, 38, 39, 40, 42),
}


def pandaset(root: Path, cache: Path, most: Most = IMAGES) -> Source:
    """A PandaSet sequence: ``images/<camera>/<instant>.jpg``, ``lidar``, ``semseg``,
    ``calibration.json``. The first two thirds of the drive train, the last quarter judges; labels
    are the classes of the LiDAR's points, written as sparse masks into ``cache``."""
    calibration = json.loads((root / 'calibration.json').read_text())
    instants = sorted(calibration['lidar_to_world'])
    count = len(instants)
    splits = {'train': instants[: 2 * count // 3], 'val': instants[count - count // 4 :]}
    classes = _classes('pandaset8', _PANDASET, known=max(map(int, _raw_classes(root))))
    folder = cache / 'pandaset'
    masks = folder / 'masks'
    samples, pairs = [], {'train': [], 'val': []}
    for name, chosen in splits.items():
        for instant in chosen:
            images = {
                camera: _camera(calibration, camera, instant) for camera in calibration['cameras']
            }
            for camera, record in images.items():
                mask = masks / camera / f'{instant}.png'
                if not mask.is_file():
                    write_bytes(mask, _sparse_mask(root, instant, record))
                pairs[name].append((root / record['img_path'], mask))
            if name == 'train':
                lidar = dict(lidar_path=f'lidar/{instant}.bin', num_pts_feats=4)
                samples.append(dict(token=instant, images=images, lidar_points=lidar))
    info = folder / 'infos.pkl'
    write_info_file(info, dict(info_version='1.1'), samples)
    pretraining = dict(
        type='NuScenesImages',
        data_root=str(root.resolve()),
        ann_file=str(info.resolve()),
        data_prefix=dict(img='', pts=''),
    )
    splits = (
        LabelledImages(pairs[name], class_set=classes, image_size=VIEW, max_images=count)
        for name, count in (('train', most[0]), ('val', most[1]), ('train', None))
    )
    return Source('pandaset', pretraining, *splits, has_depth=True)


def _raw_classes(root: Path) -> dict[str, str]:
    return json.loads((root / 'classes.json').read_text())


def _camera(calibration: dict[str, Any], camera: str, instant: str) -> dict[str, Any]:
    lens = calibration['cameras'][camera]
    to_world = np.array(calibration['lidar_to_world'][instant])
    lidar2cam = np.linalg.inv(calibration['camera_to_world'][camera][instant]) @ to_world
    width, height = calibration['image_size']
    return dict(
        img_path=f'images/{camera}/{instant}.jpg',
        width=width,
        height=height,
        cam2img=[[lens['fx'], 0, lens['cx']], [0, lens['fy'], lens['cy']], [0, 0, 1]],
        lidar2cam=lidar2cam.tolist(),
    )


def _sparse_mask(root: Path, instant: str, camera: dict[str, Any]) -> bytes:
    """PNG of the class of the nearest point in each pixel; 255 where none is."""
    points = np.fromfile(root / f'lidar/{instant}.bin', np.float32).reshape(-1, 4)[:, :3]
    labels = np.fromfile(root / f'semseg/{instant}.bin', np.uint8)
    if len(points) != len(labels):
        raise DataError(
            root / f'semseg/{instant}.bin',
            f'{len(labels)} labels for {len(points)} points',
            'Copy both files again',
        )
    axes = np.array(camera['lidar2cam'])
    own = points @ axes[:3, :3].T + axes[:3, 3]
    pixel = own @ np.array(camera['cam2img']).T
    with np.errstate(divide='ignore', invalid='ignore'):
        x, y = np.floor(pixel[:, 0] / pixel[:, 2]), np.floor(pixel[:, 1] / pixel[:, 2])
    seen = (own[:, 2] > 1) & (x >= 0) & (x < camera['width']) & (y >= 0) & (y < camera['height'])
    far_first = np.flatnonzero(seen)[np.argsort(-own[seen, 2], kind='stable')]
    mask = np.full((camera['height'], camera['width']), IGNORE, np.uint8)
    mask[y[far_first].astype(int), x[far_first].astype(int)] = labels[far_first]
    return cv2.imencode('.png', mask)[1].tobytes()


SOURCES: dict[str, Callable[..., Source]] = dict(
    toydrive=toydrive, camvid=camvid, pandaset=pandaset
)
