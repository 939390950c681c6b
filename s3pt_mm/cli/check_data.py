"""Read a whole pre-training dataset and report missing, torn and odd files.

    s3pt-check --root data/nuscenes \\
        --info data/nuscenes/nuscenes_infos_train.parquet --out work_dirs/check.json
    s3pt-check --folder /path/to/images --out check.csv
    s3pt-check --config configs/s3pt/vits16_nuscenes.py --out check.json

Runs in parallel; when interrupted, the same command continues. Exit status 0: no problem, 1: the
report lists some, 2: the dataset cannot be opened.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from s3pt_mm.common.errors import DataError, explain
from s3pt_mm.common.files import write_json, write_text
from s3pt_mm.common.workers import usable_cpus
from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset
from s3pt_mm.data.transforms.image import EncodedImage
from s3pt_mm.data.transforms.lidar import read_sweep

KINDS = ('ok', 'missing', 'torn', 'wrong size', 'no lidar')
_CHUNK = 16  # images a task: small enough to lose little when killed

_DATASET: PretrainDataset | None = None  # set before the workers fork, so that they share it
_EXPECT_LIDAR = True


def check_image(item: dict[str, Any]) -> list[dict[str, str]]:
    """Problems of the image of an item.

    The whole file is decoded; the size is compared with the info file's (``ori_size``) if it says.

    Returns:
        One ``dict(file, kind, problem)`` a problem.
    """
    path = item['img_path']
    if not os.path.isfile(path):
        return [_problem(path, 'missing', 'no such file')]
    try:
        image = EncodedImage(Path(path).read_bytes(), path)
        image.decode()
    except (DataError, OSError) as error:
        return [_problem(path, 'torn', getattr(error, 'problem', str(error)))]
    expected = item.get('ori_size')
    if expected and tuple(expected) != image.size:
        message = f'{image.size[0]} x {image.size[1]} pixels, the info file says {expected}'
        return [_problem(path, 'wrong size', message)]
    return []


def check_lidar(item: dict[str, Any], *, expected: bool) -> list[dict[str, str]]:
    """Problems of the LiDAR sweep of an item; a dataset without LiDAR has none."""
    lidar = item.get('lidar_points')
    if lidar is None:
        return [_problem(item['img_path'], 'no lidar', 'no LiDAR sweep')] if expected else []
    path = lidar['lidar_path']
    if not os.path.isfile(path):
        return [_problem(path, 'missing', 'no such file')]
    try:
        read_sweep(path, lidar['num_pts_feats'])
    except DataError as error:
        kind = 'wrong size' if 'multiple' in error.problem else 'torn'
        return [_problem(path, kind, error.problem)]
    return []


def _problem(path: str, kind: str, problem: str) -> dict[str, str]:
    return {'file': str(path), 'kind': kind, 'problem': problem}


def _check_range(bounds: tuple[int, int]) -> dict[str, Any]:
    """Check the images [start, stop); a sweep that neighbours share is read once."""
    assert _DATASET is not None
    problems: list[dict[str, str]] = []
    sweeps: set[str] = set()
    for index in range(*bounds):
        try:
            item = _DATASET.get_data_info(index)
        except DataError as error:  # calibration
            problems.append(_problem(error.path, 'torn', error.problem))
            continue
        problems += check_image(item)
        sweep = (item.get('lidar_points') or {}).get('lidar_path')
        if sweep is None or sweep not in sweeps:
            problems += check_lidar(item, expected=_EXPECT_LIDAR)
            sweeps.add(sweep)
    return {'start': bounds[0], 'stop': bounds[1], 'problems': problems}


def _read_progress(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Finished ranges of an earlier run of the same check; a torn last line is dropped."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break  # killed while writing it
    if not records or records[0] != header:
        return []  # another dataset, or none
    return records[1:]


def check_dataset(
    dataset: PretrainDataset,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    expect_lidar: bool | None = None,
    resume: bool = True,
) -> dict[str, Any]:
    """Check all files of a dataset, in parallel, with progress, resumable.

    While it runs, finished ranges go to ``<out>.progress``; a second run with the same dataset
    continues there. At the end the report is written to ``out``: CSV (columns file, kind, problem)
    if the name ends so, else JSON.

    Args:
        dataset: needs no pipeline.
        out: report, ``.json`` or ``.csv``.
        workers: processes; default one a core.
        expect_lidar: whether an image without LiDAR is a problem; default: if any image has it.
        resume: go on after an interrupted run.

    Returns:
        ``dict(images, problems=[dict(file, kind, problem)], counts={kind: number})``; every file
        is named once a kind.
    """
    global _DATASET, _EXPECT_LIDAR
    from rich.progress import track

    out, total = Path(out), len(dataset)
    if expect_lidar is None:
        expect_lidar = any('lidar_points' in _raw(dataset, i) for i in {0, total // 2, total - 1})
    out.parent.mkdir(parents=True, exist_ok=True)
    progress = out.with_name(out.name + '.progress')
    header = {
        'ann_file': str(dataset.ann_file),
        'data_root': str(dataset.data_root),
        'images': total,
        'lidar': expect_lidar,
    }
    records = _read_progress(progress, header) if resume else []
    done = {record['start'] for record in records}
    ranges = [(i, min(i + _CHUNK, total)) for i in range(0, total, _CHUNK) if i not in done]
    _DATASET, _EXPECT_LIDAR = dataset, expect_lidar
    workers = min(workers or usable_cpus(), max(1, len(ranges)))
    try:
        # Drops a torn last line.
        write_text(progress, ''.join(json.dumps(line) + '\n' for line in (header, *records)))
        with progress.open('a', encoding='utf-8') as file:
            for record in track(_run(ranges, workers), description='checking', total=len(ranges)):
                records.append(record)
                file.write(json.dumps(record) + '\n')
                file.flush()
    finally:
        _DATASET = None
    return _write_report(out, progress, total, records)


def _run(ranges: list[tuple[int, int]], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from map(_check_range, ranges)
        return
    with multiprocessing.get_context('fork').Pool(workers, _one_thread) as pool:
        yield from pool.imap_unordered(_check_range, ranges)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _raw(dataset: PretrainDataset, index: int) -> dict[str, Any]:
    try:
        return dataset.get_data_info(index)
    except DataError:
        return {}


def _write_report(
    out: Path, progress: Path, total: int, records: list[dict[str, Any]]
) -> dict[str, Any]:
    unique: dict[tuple[str, str], dict[str, str]] = {}
    for record in sorted(records, key=lambda record: record['start']):
        for problem in record['problems']:
            unique.setdefault((problem['file'], problem['kind']), problem)
    problems = list(unique.values())
    counts = {kind: sum(p['kind'] == kind for p in problems) for kind in KINDS[1:]}
    report = {'images': total, 'counts': counts, 'problems': problems}
    if out.suffix == '.csv':
        table = io.StringIO(newline='')
        writer = csv.DictWriter(table, ['file', 'kind', 'problem'])
        writer.writeheader()
        writer.writerows(problems)
        write_text(out, table.getvalue())
    else:
        write_json(out, report)
    progress.unlink()
    return report


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line; exactly one source."""
    parser = argparse.ArgumentParser(description='check the files of a pre-training dataset')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--info', help='info file of s3pt-data nuscenes')
    source.add_argument('--folder', help='folder of images')
    source.add_argument('--config', help='its train_dataloader.dataset is checked')
    parser.add_argument('--root', default='', help='folder of the data, with --info')
    parser.add_argument('--image-sweeps', action='store_true', help='with --info')
    parser.add_argument('--out', required=True, help='report, .json or .csv')
    parser.add_argument('--workers', type=int, default=None, help='default: one a core')
    parser.add_argument('--restart', action='store_true', help='forget an interrupted run')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print the counts, return the exit status."""
    args = parse_args(argv)
    from mmengine.config import Config
    from mmpretrain.registry import DATASETS

    from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
    from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages

    try:
        if args.info:
            dataset = NuScenesImages(
                ann_file=os.path.abspath(args.info),
                data_root=args.root or os.path.dirname(os.path.abspath(args.info)),
                image_sweeps=args.image_sweeps,
            )
        elif args.folder:
            dataset = ImageFolderDataset(data_root=args.folder)
        else:
            settings = Config.fromfile(args.config).train_dataloader.dataset
            dataset = DATASETS.build({**settings, 'pipeline': [], '_scope_': 'mmpretrain'})
        report = check_dataset(dataset, args.out, workers=args.workers, resume=not args.restart)
    except (DataError, OSError) as error:
        print(f'error: {explain(error)}', file=sys.stderr)
        return 2
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='backslashreplace')  # names that are not UTF-8
    for problem in report['problems'][:20]:
        print(f'{problem["kind"]}: {problem["file"]}: {problem["problem"]}')
    if len(report['problems']) > 20:
        print(f'... and {len(report["problems"]) - 20} more')
    counts = ', '.join(f'{number} {kind}' for kind, number in report['counts'].items())
    print(f'{report["images"]} images: {counts}. Report: {args.out}')
    return 1 if report['problems'] else 0
