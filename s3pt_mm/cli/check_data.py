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
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from s3pt_mm.hosts import compat

compat.apply()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmpretrain.registry import DATASETS  # noqa: E402

from s3pt_mm.common.errors import ConfigError, DataError, explain  # noqa: E402
from s3pt_mm.common.files import write_json, write_text  # noqa: E402
from s3pt_mm.common.workers import in_processes, usable_cpus  # noqa: E402
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset  # noqa: E402
from s3pt_mm.data.datasets.open_info import open_info  # noqa: E402
from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset  # noqa: E402
from s3pt_mm.data.file_checks import (  # noqa: E402
    Look,
    Problem,
    check_item,
    check_lidar,
    compare,
    problem,
)
from s3pt_mm.resume.data_identity import fingerprint  # noqa: E402

KINDS = ('missing', 'torn', 'wrong size', 'no lidar')
_CHUNK = 16  # images a task: small enough to lose little when killed

_DATASET: PretrainDataset | None = None  # set before the workers fork, so that they share it
_EXPECT_LIDAR = True


def _check_range(bounds: tuple[int, int]) -> dict[str, Any]:
    """Check the images [start, stop); a sweep that neighbours share is read once."""
    assert _DATASET is not None
    problems: list[Problem] = []
    looks: list[Look] = []
    sweeps: set[tuple[Any, Any]] = set()
    for index in range(*bounds):
        try:
            item = _DATASET.get_data_info(index)
        except DataError as error:  # calibration
            problems.append(problem(error.path, 'torn', error.problem))
            continue
        found, seen = check_item(item)
        problems, looks = problems + found, looks + seen
        lidar = item.get('lidar_points') or {}
        sweep = (lidar.get('lidar_path'), lidar.get('span'))
        if sweep[0] is None or sweep not in sweeps:
            problems += check_lidar(item, expected=_EXPECT_LIDAR)
            sweeps.add(sweep)
    return {'start': bounds[0], 'stop': bounds[1], 'problems': problems, 'looks': looks}


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
        ``dict(images, problems=[dict(file, kind, problem)], counts={kind: number}, duplicates,
        near_duplicates, masks, exclude)``; every file is named once a kind. ``duplicates`` are
        groups of files with the same bytes, ``near_duplicates`` of pictures that look alike,
        ``masks`` look like label masks and ``exclude`` are patterns that leave them out. These
        are no problems: what to do about them depends on the data.
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
        'data': fingerprint(dataset),
        'version': 3,  # of a line's fields
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
    return _write_report(out, progress, total, records, str(dataset.data_root or ''))


def _run(ranges: list[tuple[int, int]], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from map(_check_range, ranges)
        return
    yield from in_processes(_check_range, ranges, workers, initializer=_one_thread)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _raw(dataset: PretrainDataset, index: int) -> dict[str, Any]:
    try:
        return dataset.get_data_info(index)
    except DataError:
        return {}


def _write_report(
    out: Path, progress: Path, total: int, records: list[dict[str, Any]], root: str
) -> dict[str, Any]:
    unique: dict[tuple[str, str], dict[str, str]] = {}
    for record in sorted(records, key=lambda record: record['start']):
        for found in record['problems']:
            unique.setdefault((found['file'], found['kind']), found)
    problems = list(unique.values())
    looks = [Look(*look) for record in records for look in record['looks']]
    counts = {kind: sum(p['kind'] == kind for p in problems) for kind in KINDS}
    report = {'images': total, 'counts': counts, 'problems': problems, **compare(root, looks)}
    if out.suffix == '.csv':
        table = io.StringIO(newline='')
        writer = csv.DictWriter(table, ['file', 'kind', 'problem'])
        writer.writeheader()
        writer.writerows(problems)
        for key, kind in (('duplicates', 'duplicate'), ('near_duplicates', 'near duplicate')):
            for first, *others in report[key]:
                writer.writerows(problem(other, kind, f'of {first}') for other in others)
        writer.writerows(problem(mask, 'mask', 'looks like a mask') for mask in report['masks'])
        write_text(out, table.getvalue())
    else:
        write_json(out, report)
    progress.unlink()
    return report


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line; exactly one source."""
    parser = argparse.ArgumentParser(description='check the files of a pre-training dataset')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--info', help='info file of any layout')
    source.add_argument('--folder', help='folder of images')
    source.add_argument('--config', help='what its train_dataloader would read is checked')
    parser.add_argument('--root', help='folder of the data, with --info; default: looked for')
    parser.add_argument('--image-sweeps', action='store_true', help='with --info')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE', help='with --config'
    )
    parser.add_argument('--out', required=True, help='report, .json or .csv')
    parser.add_argument('--workers', type=int, default=None, help='default: one a core')
    parser.add_argument('--restart', action='store_true', help='forget an interrupted run')
    return parser.parse_args(argv)


class Joined:
    """Data sets one after another, whatever their kinds: items only."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.datasets, self.ends = parts, np.cumsum([len(part) for part in parts])
        self.ann_file = '; '.join(str(part.ann_file) for part in parts)
        self.data_root = '; '.join(str(part.data_root) for part in parts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Item ``index`` of all."""
        part = int(np.searchsorted(self.ends, index, side='right'))
        found = self.datasets[part]
        return found.get_data_info(index - (self.ends[part] - len(found)))


def open_config(args: argparse.Namespace) -> Any:
    """What a config's training would read, without its pipeline and wrappers.

    Raises:
        ConfigError: The config is missing or has a key that nothing reads.
        DataError: The data set cannot be opened.
    """
    from s3pt_mm.hosts.checks import datasets
    from s3pt_mm.hosts.launch import load_config

    run = dict(work_dir=None, launcher='none', local_rank=0)
    cfg = load_config(argparse.Namespace(**run, config=args.config, cfg_options=args.cfg_options))
    scope = cfg.get('default_scope', 'mmpretrain')
    parts = [
        DATASETS.build({**settings, 'pipeline': [], '_scope_': scope})
        for settings in datasets(cfg.train_dataloader.dataset)
    ]
    return parts[0] if len(parts) == 1 else Joined(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print the counts, return the exit status."""
    args = parse_args(argv)
    try:
        if args.info:
            dataset = open_info(args.info, args.root, image_sweeps=args.image_sweeps)
        elif args.folder:
            dataset = ImageFolderDataset(data_root=args.folder)
        else:
            dataset = open_config(args)
        report = check_dataset(dataset, args.out, workers=args.workers, resume=not args.restart)
    except (DataError, ConfigError, OSError) as error:
        print(f'error: {explain(error)}', file=sys.stderr)
        return 2
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='backslashreplace')  # names that are not UTF-8
    for found in report['problems'][:20]:
        print(f'{found["kind"]}: {found["file"]}: {found["problem"]}')
    if len(report['problems']) > 20:
        print(f'... and {len(report["problems"]) - 20} more')
    counts = ', '.join(f'{number} {kind}' for kind, number in report['counts'].items())
    print(f'{report["images"]} images: {counts}. Report: {args.out}')
    for key, what in (
        ('duplicates', 'are there more than once (same bytes)'),
        ('near_duplicates', 'look nearly like another'),
    ):
        groups = report[key]
        if groups:
            images = sum(map(len, groups))
            print(f'{images} {what}, in {len(groups)} groups, e.g. {" and ".join(groups[0][:2])}')
    if report['masks']:
        share = len(report['masks']) / report['images']
        print(
            f'{len(report["masks"])} ({share:.1%}) look like label masks, e.g. '
            f'{report["masks"][0]}; leave them out: exclude={report["exclude"]}'
        )
    return 1 if report['problems'] else 0
