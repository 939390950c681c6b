"""Where ``s3pt-clusters`` finds images with labels: info files, lists of masks, folders."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.data.geometry import project_points
from s3pt_mm.data.label_maps import read_label_map
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.data.transforms.image import LoadImage
from s3pt_mm.data.transforms.lidar import LoadLidar, read_sweep
from s3pt_mm.data.transforms.views import TwoViews
from s3pt_mm.probes.clusters import Views
from s3pt_mm.probes.token_labels import (
    LabelledPoints,
    from_mask,
    segments_in_boxes,
    segments_of_points,
)

Labelled = tuple[dict[str, Any], Callable[[dict[str, Any]], LabelledPoints]]
"""An item of a data set, and what labels it once its image is loaded."""


def load(args: argparse.Namespace) -> tuple[list[Labelled], list[str]]:
    """Items with labels, spread evenly over the data set, and names of the classes."""
    if args.masks:
        found, names = _folder(args)
    elif args.data.is_file() and args.data.suffix == '.json':
        found, names = _list(args)
    else:
        found, names = _info_file(args)
    if args.max_images and len(found) > args.max_images:
        chosen = np.linspace(0, len(found) - 1, args.max_images).round().astype(int)
        found = [found[index] for index in chosen]
    return found, names


def draw(items: list[Labelled], size: int, scale: tuple[float, float], seed: int) -> list[Views]:
    """Two views of each image, of the recipe's crops and colours; the draw follows the seed."""
    views, load_image, load_lidar = TwoViews(size=size, scale=scale), LoadImage(), LoadLidar()
    drawn = []
    for index, (item, label) in enumerate(items):
        np.random.seed((seed * 100_003 + index) % 2**32)
        results = load_lidar.transform(load_image.transform(dict(item)))
        image_size, points = results['img'].size, label(results)
        uvd = results.get('lidar_uvd', np.zeros((0, 3), np.float32))
        results = views.transform(results)
        drawn.append(
            Views(
                results['img'],
                points,
                results['view_boxes'],
                results['view_flips'],
                uvd,
                image_size,
            )  # fmt: skip
        )
    return drawn


def _class_names(path: Path | None) -> dict[int, str]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(path, f'no JSON with the classes ({error})', 'See --classes') from error
    pairs = found.items() if isinstance(found, dict) else enumerate(found)
    return {int(number): str(name) for number, name in pairs}


def _things(args: argparse.Namespace, names: dict[int, str]) -> np.ndarray:
    """Numbers of the classes that have objects; all of them where nobody says."""
    if not args.things:
        return np.arange(256)
    numbers = {name: number for number, name in names.items()}
    unknown = [name for name in args.things if name not in numbers and not name.isdigit()]
    if unknown:
        raise SystemExit(f'--things {unknown[0]!r} is none of the classes {sorted(numbers)}')
    return np.array([numbers[n] if n in numbers else int(n) for n in args.things])


def _as_list(names: dict[int, str]) -> list[str]:
    return [names.get(number, str(number)) for number in range(max(names, default=-1) + 1)]


def _folder(args: argparse.Namespace) -> tuple[list[Labelled], list[str]]:
    names = _class_names(args.classes)
    things, found = _things(args, names), []
    dataset = ImageFolderDataset(data_root=str(args.data))
    for index in range(len(dataset)):
        item = dataset.get_data_info(index) | dict(upright=False)  # as the mask is
        path = args.data / args.masks.replace('{path}', str(Path(item['token']).with_suffix('')))

        def label(results: dict[str, Any], path: Path = path) -> LabelledPoints:
            try:
                with Image.open(path) as file:
                    mask = np.asarray(file)
            except OSError as error:
                raise DataError(path, f'no readable mask ({error})', 'Check --masks') from error
            if mask.shape != results['img'].size[::-1]:
                raise DataError(
                    path, f'a mask of shape {mask.shape} for {results["img"].size}', 'Check --masks'
                )
            return from_mask(mask, things)

        found.append((item, label))
    return found, _as_list(names)


def _list(args: argparse.Namespace) -> tuple[list[Labelled], list[str]]:
    images = LabelledImages.from_nuimages(
        args.data, image_size=(16, 16), image_root=args.root, class_set=args.class_set
    )
    classes = images.class_set.classes
    stuff = ('driveable surface', 'flat.driveable_surface', 'background', 'ego vehicle')
    names = dict(enumerate(classes))
    args.things = args.things or [name for name in classes if name not in stuff]
    things, found = _things(args, names), []
    for image, mask in images.pairs:

        def label(results: dict[str, Any], image: str = image, mask: str = mask) -> LabelledPoints:
            shape = results['img'].size[::-1]
            labels = read_label_map(mask, images.class_set, image_size=shape, img_path=image)
            return from_mask(labels, things)

        found.append((dict(img_path=image), label))
    return found, list(classes)


def _info_file(args: argparse.Namespace) -> tuple[list[Labelled], list[str]]:
    dataset = NuScenesImages(
        ann_file=str(args.data.absolute()), data_root=str(args.root or args.data.parent)
    )
    infos = load_info_file(args.data.absolute())
    names = _class_names(args.classes)
    if not args.point_labels and not names:
        categories = infos['metainfo'].get('categories', {})
        names = {int(number) + 1: name for name, number in categories.items()} | {0: 'background'}
    things = _things(args, names)
    boxes = {info.get('token'): info.get('instances', []) for info in infos['data_list']}
    sweeps: dict[str, tuple[np.ndarray, ...]] = {}

    def segments(item: dict[str, Any]) -> tuple[np.ndarray, ...]:
        path, features = (item['lidar_points'][key] for key in ('lidar_path', 'num_pts_feats'))
        if path not in sweeps:
            points = read_sweep(path, features)[:, :3]
            if args.point_labels:
                labels = _point_labels(Path(path), args.point_labels, len(points))
                sweeps[path] = (points, *segments_of_points(points, labels, things))
            else:
                # Class 0 is what no box holds.
                instances = [
                    {**box, 'bbox_label_3d': box['bbox_label_3d'] + (box['bbox_label_3d'] >= 0)}
                    for box in boxes.get(item['token'], [])
                ]
                sweeps[path] = (points, *segments_in_boxes(points, instances, 0))
        return sweeps[path]

    def label(results: dict[str, Any]) -> LabelledPoints:
        points, numbers, classes, objects = segments(results)
        projected = [
            project_points(
                points[numbers == number],
                results['lidar_points']['lidar2cam'],
                results['cam2img'],
                results['img'].size,
                distortion=results.get('distortion'),
            )[:, :2]
            for number in range(len(classes))
        ]
        counts = [len(uv) for uv in projected]
        segment = np.repeat(np.arange(len(classes)), counts)
        return LabelledPoints(np.concatenate(projected), segment, classes, objects)

    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    found = [(item, label) for item in items if 'lidar_points' in item]
    if not found:
        raise DataError(args.data, 'no image in it has LiDAR', 'Use masks: see --masks')
    return found, _as_list(names)


def _point_labels(sweep: Path, template: str, count: int) -> np.ndarray:
    path = Path(template.replace('{stem}', sweep.name.split('.')[0]))
    try:
        labels = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(path, f'no labels of {sweep} ({error})', 'Check --point-labels') from error
    if len(labels) != count:
        raise DataError(
            path, f'{len(labels)} labels for the {count} points of {sweep}', 'Check --point-labels'
        )
    return labels
