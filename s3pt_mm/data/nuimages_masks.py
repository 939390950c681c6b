"""Semantic masks of nuImages from its tables: ``s3pt-data nuimages``.

The devkit's ``get_segmentation`` draws a mask per call and scans every annotation of the data set
for it (67,000 images times 550,000 annotations). Here annotations are grouped by image once and
the masks drawn in parallel; the pixels are the same (a test compares). Masks hold the devkit's
ids (:data:`s3pt_mm.data.class_sets.NUIMAGES_RAW_IDS`), found by category *name*: tokens and
order of the category table differ between table versions.

Written under the output folder: ``semantic_masks/<version>/<image path>.png`` (palette PNG) and
one list a split, ``nuimages_<split>.json`` = ``dict(metainfo, data_list=[dict(img_path,
seg_map_path, token, height, width)])``; ``img_path`` is relative to the nuImages folder,
``seg_map_path`` to the output folder. Every file appears under its name only when it is whole, and
masks that exist are kept, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from s3pt_mm.common.errors import ConfigError, DataError, fields_of
from s3pt_mm.common.files import inside, remove_leftovers, replacing, write_json
from s3pt_mm.common.workers import in_processes, usable_cpus
from s3pt_mm.data.class_sets import NUIMAGES_25, NUIMAGES_RAW_IDS

_AGAIN = 'Download the tables again'
MASK_FOLDER = 'semantic_masks'
VERSIONS = ('v1.0-train', 'v1.0-val')


@dataclass(frozen=True)
class MaskJob:
    """One image to draw: file names and its annotations (raw id, run-length mask) in order."""

    image: Path
    target: Path
    token: str
    layers: tuple[tuple[int, dict[str, Any]], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``s3pt-data nuimages``."""
    parser.add_argument('--root', required=True, help='folder that holds v1.0-train and samples/')
    parser.add_argument('--version', '--versions', nargs='+', default=VERSIONS, dest='versions')
    parser.add_argument('--out-dir', help='where masks and lists go; default: the root itself')
    parser.add_argument(
        '--random-split',
        type=float,
        metavar='SHARE',
        help='also write nuimages_random_{train,val}.json: a seeded random split of all images '
        'of the versions, e.g. 0.8',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the random split')
    parser.add_argument('--workers', type=int, default=usable_cpus())
    parser.add_argument('--overwrite', action='store_true', help='draw masks that exist again')


def run(args: argparse.Namespace) -> None:
    """Entry point of the sub-command."""
    create_nuimages(
        args.root,
        out_dir=args.out_dir,
        versions=args.versions,
        random_split=args.random_split,
        seed=args.seed,
        workers=args.workers,
        overwrite=args.overwrite,
    )


def create_nuimages(
    root: str | os.PathLike[str],
    *,
    out_dir: str | os.PathLike[str] | None = None,
    versions: Sequence[str] = VERSIONS,
    random_split: float | None = None,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Path]:
    """Draw all masks and write the lists.

    Args:
        root: nuImages folder.
        out_dir: Where masks and lists go; None: ``root``.
        versions: Table folders; the part after the last ``-`` names the list.
        random_split: Share of training images of a random split of all images; None: no such.
        seed: Of that split.
        workers: Processes.
        overwrite: Draw masks that exist again.
        progress: Show a progress bar.

    Returns:
        The lists by split name.

    Raises:
        DataError: A table or image is missing, a category is unknown, a mask does not fit.
    """
    if random_split is not None and not 0 < random_split < 1:
        raise ConfigError(f'--random-split {random_split}: give a share between 0 and 1, as 0.8')
    root = Path(root)
    out = Path(out_dir) if out_dir is not None else root
    items: dict[str, list[dict[str, Any]]] = {}
    for version in versions:
        jobs = list(read_jobs(root, version, out / MASK_FOLDER / version))
        sizes = _draw_all(jobs, workers, overwrite, f'masks {version}' if progress else None)
        items[version.rsplit('-', 1)[-1]] = [
            dict(
                img_path=job.image.relative_to(root).as_posix(),
                seg_map_path=job.target.relative_to(out).as_posix(),
                token=job.token,
                height=height,
                width=width,
            )
            for job, (height, width) in zip(jobs, sizes, strict=True)
        ]
    about = dict(dataset='nuimages', versions=list(versions), raw_ids=dict(NUIMAGES_RAW_IDS))
    lists = {
        split: _write_list(out / f'nuimages_{split}.json', about, part)
        for split, part in items.items()
    }
    if random_split is not None:
        pool = sorted((item for part in items.values() for item in part), key=lambda i: i['token'])
        order = np.random.default_rng(seed).permutation(len(pool))
        cut = round(random_split * len(pool))
        about |= dict(random_split=random_split, seed=seed)
        for split, chosen in (('random_train', order[:cut]), ('random_val', order[cut:])):
            part = [pool[index] for index in sorted(chosen)]
            lists[split] = _write_list(out / f'nuimages_{split}.json', about, part)
    if progress:
        for path in lists.values():
            print(path)
    return lists


def read_jobs(root: Path, version: str, target: Path) -> Iterator[MaskJob]:
    """Read the tables of one version; one job a key-frame image, in the tables' order.

    Raises:
        DataError: A table is missing, a category has a name that nuImages does not, or a file name
            leads out of its folder.
    """
    tables = {name: _table(root, version, name) for name in (
        'category', 'sample_data', 'surface_ann', 'object_ann')}  # fmt: skip
    ids = {}
    table = root / version / 'category.json'
    with fields_of(table, _AGAIN):
        for category in tables['category']:
            if category['name'] not in NUIMAGES_RAW_IDS:
                raise DataError(
                    table,
                    f'has the category {category["name"]!r}, which nuImages v1.0 has not',
                    'Use the tables of nuImages, not those of nuScenes',
                )
            ids[category['token']] = NUIMAGES_RAW_IDS[category['name']]
    layers: dict[str, list[tuple[int, dict]]] = defaultdict(list)
    # As the devkit draws: surfaces first, in table order, then objects by token.
    for name in ('surface_ann', 'object_ann'):
        with fields_of(root / version / f'{name}.json', _AGAIN):
            rows = tables[name]
            if name == 'object_ann':
                rows = sorted(rows, key=lambda row: row['token'])
            for annotation in rows:
                if annotation['mask'] is not None:
                    layers[annotation['sample_data_token']].append(
                        (ids[annotation['category_token']], annotation['mask'])
                    )
    table = root / version / 'sample_data.json'
    with fields_of(table, _AGAIN):
        jobs = [
            MaskJob(
                inside(root, row['filename'], table),
                inside(target, row['filename'], table).with_suffix('.png'),
                row['token'],
                tuple(layers.get(row['token'], ())),
            )
            for row in tables['sample_data']
            if row['is_key_frame']
        ]
    yield from jobs


def draw(job: MaskJob) -> NDArray[np.uint8]:
    """The mask of one image, (H, W) raw ids.

    Raises:
        DataError: The image is missing, or an annotation's mask cannot be decoded or has another
            size than the image.
    """
    try:
        with Image.open(job.image) as file:
            width, height = file.size
    except OSError as error:
        raise DataError(
            job.image, f'cannot be read ({error})', 'Extract the nuImages samples again'
        ) from error
    canvas = np.zeros((height, width), np.uint8)
    for raw_id, run_length in job.layers:
        with fields_of(job.image, _AGAIN):
            rows, columns = run_length['size']
            run_length['counts']
        if (rows, columns) != (height, width):
            raise DataError(
                job.image,
                f'is {width} x {height} pixels, but an annotation of image {job.token} has a mask '
                f'of {columns} x {rows}',
                'Tables and images are of different releases; download both again',
            )
        try:
            counts = base64.b64decode(run_length['counts'], validate=True)
            layer = coco_mask.decode(dict(size=[height, width], counts=counts))
        except (binascii.Error, ValueError, TypeError) as error:
            raise DataError(
                job.image,
                f'an annotation of image {job.token} has an unreadable mask ({error})',
                'Download the tables again',
            ) from error
        canvas[layer == 1] = raw_id
    return canvas


def _draw_and_save(work: tuple[MaskJob, bool]) -> tuple[int, int]:
    job, overwrite = work
    if job.target.is_file() and not overwrite:
        with Image.open(job.target) as file:
            return file.height, file.width
    mask = draw(job)
    image = Image.fromarray(mask)
    image.putpalette(_palette())
    with replacing(job.target, tidy=False) as temporary:
        image.save(temporary, format='PNG')
    return mask.shape


def _palette() -> list[int]:
    colours = np.zeros((256, 3), np.uint8)
    for raw, label in NUIMAGES_25.raw_to_label.items():
        if label < len(NUIMAGES_25.palette):
            colours[raw] = NUIMAGES_25.palette[label]
    return colours.reshape(-1).tolist()


def _draw_all(
    jobs: Sequence[MaskJob], workers: int, overwrite: bool, title: str | None
) -> list[tuple[int, int]]:
    from rich.progress import track

    for folder in {job.target.parent for job in jobs}:
        remove_leftovers(folder)
    work = ((job, overwrite) for job in jobs)
    shown = partial(track, total=len(jobs), description=title or '', disable=title is None)
    if workers <= 1:
        return list(shown(map(_draw_and_save, work)))
    return list(shown(in_processes(_draw_and_save, work, workers, chunksize=8)))


def _table(root: Path, version: str, name: str) -> list[dict[str, Any]]:
    path = root / version / f'{name}.json'
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            path,
            f'cannot be read ({error.strerror})',
            f'--root must hold the table folder {version} of nuImages',
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, f'is no JSON ({error})', 'Download the tables again') from error


def _write_list(path: Path, about: dict[str, Any], items: list[dict[str, Any]]) -> Path:
    write_json(path, dict(metainfo=about, data_list=items), indent=0)
    return path
