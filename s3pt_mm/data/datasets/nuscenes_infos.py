"""nuScenes' tables -> info files in mmdet3d's v2 format (``s3pt-data nuscenes``).

One file serves pre-training and detection.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3pt_mm.common.errors import DataError, fields_of
from s3pt_mm.common.workers import in_processes, usable_cpus
from s3pt_mm.data.datasets.info_file import write_info_file
from s3pt_mm.data.datasets.nuscenes_image_sweeps import add_image_sweeps
from s3pt_mm.data.datasets.nuscenes_samples import CLASSES, SampleBuilder

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

SPLITS = {
    'v1.0-mini': {'train': 'mini_train', 'val': 'mini_val'},
    'v1.0-trainval': {'train': 'train', 'val': 'val'},
    'v1.0-test': {'test': 'test'},
}
TABLES = (
    'attribute', 'calibrated_sensor', 'category', 'ego_pose', 'instance', 'log', 'map', 'sample',
    'sample_annotation', 'sample_data', 'scene', 'sensor', 'visibility',
)  # fmt: skip
_AGAIN = 'Download the metadata again'
_BUILDER: SampleBuilder | None = None  # set before the workers fork, so that they share the tables


def _build_scene(task: tuple[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Infos of one scene and messages of failed samples; with 'raise' the first failure raises."""
    assert _BUILDER is not None
    scene_token, on_error = task
    scene = _BUILDER.nusc.get('scene', scene_token)
    tables = Path(_BUILDER.nusc.dataroot) / _BUILDER.nusc.version
    infos, failures, seen = {}, [], set()
    token, previous = scene['first_sample_token'], None
    while token:
        try:
            if token in seen:
                raise KeyError(f'{token} as the one after itself')
            seen.add(token)
            sample = _BUILDER.nusc.get('sample', token)
        except (KeyError, TypeError) as error:
            raise _BUILDER.dangling(f'scene {scene["name"]}', error) from error
        try:
            with fields_of(tables, f'{_AGAIN}, or leave sample {token} out with --on-error skip'):
                infos[token] = _BUILDER.build(sample, previous)
        except DataError as error:
            if on_error == 'raise':
                raise
            failures.append(str(error))
        token, previous = sample['next'], sample
    if _BUILDER.image_sweeps and infos:
        failures += add_image_sweeps(_BUILDER, infos, on_error)
    return list(infos.values()), failures


def load_tables(root: str | os.PathLike[str], version: str) -> NuScenes:
    """nuscenes-devkit's tables.

    Raises:
        DataError: if the version is unknown, or a table is missing, torn or of nuImages.
    """
    root = Path(root)
    if version not in SPLITS:
        raise DataError(root, f'unknown version {version!r}', f'Use one of {", ".join(SPLITS)}')
    if not (root / version).is_dir():
        found = (
            sorted(path.name for path in root.glob('v*') if path.is_dir())
            if root.is_dir()
            else 'no such folder'
        )
        raise DataError(
            root / version,
            f'no tables here (in the root: {found})',
            "Give --root the folder that holds samples/ and the version's folder",
        )
    folder = root / version
    missing = [f'{name}.json' for name in TABLES if not (folder / f'{name}.json').is_file()]
    if missing and (deeper := next(folder.glob('*/sample.json'), None)):
        raise DataError(
            folder, f'its tables lie one level deeper, in {deeper.parent}', f'Move them to {folder}'
        )
    remedy = 'Download the metadata again'
    if (folder / 'object_ann.json').is_file():
        remedy = (
            'Here lie tables of nuImages, whose versions have the same names: extract nuImages '
            'into a folder of its own, and the metadata of nuScenes anew'
        )
    if missing:
        raise DataError(folder, f'lacks {", ".join(missing)}', remedy)
    from nuscenes.nuscenes import NuScenes

    # The devkit insists on the label files of every further table that it finds (lidarseg,
    # panoptic): it is shown the tables that are used, and no other.
    with tempfile.TemporaryDirectory() as shown:
        for name in TABLES:
            (Path(shown) / f'{name}.json').symlink_to((folder / f'{name}.json').absolute())
        try:
            tables = NuScenes(version=shown, dataroot=str(root), verbose=False)
        except Exception as error:  # KeyError, JSONDecodeError, AssertionError of an absent map
            raise DataError(
                folder, f'the tables cannot be loaded ({type(error).__name__}: {error})', remedy
            ) from error
    tables.version = version
    return tables


def create_infos(
    *,
    root: str | os.PathLike[str],
    version: str,
    out_dir: str | os.PathLike[str],
    max_sweeps: int = 10,
    image_sweeps: bool = False,
    workers: int | None = None,
    on_error: str = 'raise',
    max_failed_share: float = 0.01,
    prefix: str = 'nuscenes',
) -> list[Path]:
    """Write one info file a split, ``<prefix>_infos_<split>.parquet``; an empty split is legal.

    Args:
        root: folder with ``samples/`` and the tables' folder.
        version: 'v1.0-mini', 'v1.0-trainval' or 'v1.0-test'.
        out_dir: where the files go.
        max_sweeps: earlier LiDAR sweeps to list for each sample (mmdetection3d's number is 10).
        image_sweeps: also list camera images between key frames.
        workers: processes; default one a core.
        on_error: 'raise', or 'skip' to report and leave out samples with absent files or bad rows.
        max_failed_share: with 'skip', fail when more than this share of the samples is left out.
        prefix: first part of the file names.

    Returns:
        The paths written.

    Raises:
        DataError: see ``load_tables`` and ``SampleBuilder.build``; nothing is written then.
    """
    global _BUILDER
    from nuscenes.utils.splits import create_splits_scenes
    from rich.progress import track

    nusc = load_tables(root, version)
    _BUILDER = SampleBuilder(nusc, max_sweeps=max_sweeps, image_sweeps=image_sweeps)
    splits = create_splits_scenes()
    with fields_of(Path(root) / version / 'scene.json', _AGAIN):
        by_name = {scene['name']: scene for scene in nusc.scene if scene['first_sample_token']}
    chosen = {
        split: [by_name[name] for name in splits[devkit_split] if name in by_name]
        for split, devkit_split in SPLITS[version].items()
    }
    unknown = len(by_name) - sum(map(len, chosen.values()))
    if unknown:
        print(
            f'{unknown} of {len(by_name)} scenes belong to no split of {version} and are left out.'
        )
    scenes = [scene for part in chosen.values() for scene in part]
    tasks = [(scene['token'], on_error) for scene in scenes]
    workers = min(workers or usable_cpus(), max(1, len(tasks)))
    try:
        results = (
            in_processes(_build_scene, tasks, workers) if workers > 1 else map(_build_scene, tasks)
        )
        built = dict(
            zip(
                (scene['token'] for scene in scenes),
                track(results, description='scenes', total=len(tasks)),
                strict=False,
            )
        )
    finally:
        _BUILDER = None
    failures = [message for _, messages in built.values() for message in messages]
    total = len(failures) + sum(len(infos) for infos, _ in built.values())
    for message in failures:
        print(f'left out: {message}')
    if len(failures) > max_failed_share * total:
        raise DataError(
            root,
            f'{len(failures)} of {total} samples failed, more than {max_failed_share:.2%}; '
            f'the first: {failures[0]}',
            'Complete the download, or raise --max-failed-share',
        )
    metainfo = {
        'categories': {name: index for index, name in enumerate(CLASSES)},
        'dataset': 'nuscenes',
        'version': version,
        'info_version': '1.1',
    }
    paths = []
    for split, part in chosen.items():
        infos = [info for scene in part for info in built[scene['token']][0]]
        infos = [dict(sample_idx=index, **info) for index, info in enumerate(infos)]
        paths.append(Path(out_dir) / f'{prefix}_infos_{split}.parquet')
        write_info_file(paths[-1], metainfo, infos)
        print(f'{paths[-1]}: {len(infos)} samples')
    return paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``s3pt-data nuscenes``."""
    parser.add_argument('--root', required=True, help="folder with samples/ and the tables' folder")
    parser.add_argument('--version', required=True, choices=list(SPLITS))
    parser.add_argument('--out-dir', required=True, help='where the info files go')
    parser.add_argument(
        '--max-sweeps', type=int, default=10, help='earlier LiDAR sweeps a sample (default 10)'
    )
    parser.add_argument(
        '--image-sweeps', action='store_true', help='also list the images between key frames'
    )
    parser.add_argument('--workers', type=int, default=None, help='processes (default: one a core)')
    parser.add_argument('--on-error', choices=('raise', 'skip'), default='raise')
    parser.add_argument('--max-failed-share', type=float, default=0.01)
    parser.add_argument('--prefix', default='nuscenes', help='first part of the file names')


def run(args: argparse.Namespace) -> None:
    """Entry of ``s3pt-data nuscenes``."""
    create_infos(**vars(args))
