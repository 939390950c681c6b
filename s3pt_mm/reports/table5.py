"""Supplement's Table 5: IoU of the detection classes, published figures beside our own."""

from __future__ import annotations

import argparse

from s3pt_mm.reports.segmentation_results import parse_runs, table5_rows
from s3pt_mm.reports.tables import write_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``s3pt-report table5``."""
    parser.add_argument('--run', nargs='*', default=[], metavar='NAME=FILE', dest='runs')
    parser.add_argument('--out', required=True, help='stem of .md, .csv and .tex')


def run(args: argparse.Namespace) -> None:
    """Entry point of ``s3pt-report table5``."""
    rows = table5_rows(parse_runs(args.runs) if args.runs else [])
    caption = (
        'IoU on nuImages in percent (S3PT supplement, Table 5: Mask Transformer, 100 epochs); '
        'columns marked published are quoted, the others measured'
    )
    for path in write_table(rows, list(rows[0]), args.out, caption=caption, float_format='.2f'):
        print(path)
