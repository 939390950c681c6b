"""AP by class and distance for several models (the S3PT supplement's Table 6).

A submission must not be cut to nuScenes' own ranges, as mmdet3d's NuScenesMetric does; write it
with the `submission` argument of NuScenesRangeMetric.
"""

from __future__ import annotations

import argparse
import sys

from s3pt_mm.data.datasets.nuscenes_infos import load_tables
from s3pt_mm.detection.metrics.devkit import split_tokens
from s3pt_mm.detection.metrics.devkit_metric import VALIDATION_SPLITS
from s3pt_mm.detection.metrics.range_metric import looks_cut, range_figures
from s3pt_mm.detection.metrics.submission import read_submission
from s3pt_mm.reports.detection_published import TABLE6
from s3pt_mm.reports.detection_tables import write_range_table


def _named_path(text: str) -> tuple[str, str]:
    name, separator, path = text.partition('=')
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f'expected NAME=FILE, got {text!r}')
    return name, path


def _range(text: str) -> float | str:
    return text if text == 'official' else float(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``s3pt-report ranges``."""
    parser.add_argument('--root', required=True, help='folder that holds the tables')
    parser.add_argument('--version', default='v1.0-trainval')
    parser.add_argument(
        '--submission', type=_named_path, nargs='+', required=True, metavar='NAME=FILE'
    )
    parser.add_argument('--out', required=True, help='path without ending: .md, .csv, .tex follow')
    parser.add_argument('--ranges', type=_range, nargs='+', default=[20.0, 30.0, 60.0])
    parser.add_argument('--exclude', nargs='*', default=['construction_vehicle'])
    parser.add_argument(
        '--split', help="official split, or 'seen' for the first file's samples; default: val"
    )
    parser.add_argument('--no-published', action='store_true', help='leave out the printed figures')


def run(args: argparse.Namespace) -> None:
    """Evaluate every submission and write one table."""
    results = {name: read_submission(path) for name, path in args.submission}
    nusc = load_tables(args.root, args.version)
    if args.split == 'seen':
        tokens = list(next(iter(results.values())))
    else:
        tokens = split_tokens(nusc, args.split or VALIDATION_SPLITS[args.version])
    models = {}
    for name, boxes in results.items():
        if looks_cut(nusc, boxes):
            print(
                f'warning: no box of {name} lies beyond the official 50/40/30 m of its class: '
                'the file seems cut to them, and AP at longer ranges is too low. Write it with '
                'the `submission` argument of NuScenesRangeMetric.',
                file=sys.stderr,
            )
        models[name] = range_figures(
            nusc, boxes, tokens=tokens, ranges=args.ranges, exclude=args.exclude
        )
    paths = write_range_table(models, args.out, published=None if args.no_published else TABLE6)
    print(paths[0].read_text())
    print('written:', *paths)
