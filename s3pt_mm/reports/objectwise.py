"""Supplement's Fig. 1: IoU of every class over any number of runs, as figure and table."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from s3pt_mm.reports.palette import model_colour
from s3pt_mm.reports.segmentation_results import SegmentationResult, class_rows, parse_runs
from s3pt_mm.reports.tables import write_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``s3pt-report objectwise``."""
    parser.add_argument('--run', nargs='+', required=True, metavar='NAME=FILE', dest='runs')
    parser.add_argument('--out', required=True, help='stem of .pdf, .png, .md, .csv and .tex')
    parser.add_argument('--classes', nargs='+', help='only these, in this order')
    parser.add_argument('--title', default='')


def run(args: argparse.Namespace) -> None:
    """Entry point of ``s3pt-report objectwise``."""
    runs = parse_runs(args.runs)
    for path in draw_objectwise(runs, args.out, classes=args.classes, title=args.title):
        print(path)


def draw_objectwise(
    runs: Sequence[SegmentationResult],
    stem: str | Path,
    *,
    classes: Sequence[str] | None = None,
    title: str = '',
) -> list[Path]:
    """Grouped bars, one group a class, one bar a run, mIoU last.

    Args:
        runs: In the order of the bars, e.g. the ablation ladder from bottom to top.
        stem: Path without ending.
        classes: Only these classes; None takes all that a run has a figure for.
        title: Above the axes.

    Returns:
        The files written: PDF, PNG and the tables.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    rows = class_rows(runs)
    if classes is not None:
        known = {row['class']: row for row in rows}
        strangers = [name for name in classes if name not in known]
        if strangers:
            raise ValueError(f'No classes {strangers}; there are {list(known)}.')
        rows = [known[name] for name in (*classes, 'mIoU')]
    drawn = [row for row in rows if not all(math.isnan(row[run.name]) for run in runs)]
    with plt.rc_context({'font.size': 9, 'pdf.fonttype': 42, 'font.family': 'DejaVu Sans'}):
        figure, axes = plt.subplots(figsize=(max(6.0, 0.62 * len(drawn) + 1.2), 3.2))
        width = 0.84 / len(runs)
        # mIoU stands apart: it is the mean of the groups to its left.
        positions = np.arange(len(drawn), dtype=float)
        positions[-1] += 0.4
        for number, result in enumerate(runs):
            heights = [row[result.name] for row in drawn]
            offset = (number - (len(runs) - 1) / 2) * width
            axes.bar(
                positions + offset,
                heights,
                width * 0.94,
                label=result.name,
                color=model_colour(number),
            )
        axes.axvline(positions[-1] - 0.7, color='0.7', linewidth=0.8)
        if len(drawn) < 9:
            names = [row['class'].replace(' ', '\n') for row in drawn]
            axes.set_xticks(positions, names, fontsize=8)
        else:
            names = [row['class'] for row in drawn]
            axes.set_xticks(
                positions, names, rotation=40, ha='right', rotation_mode='anchor', fontsize=8
            )
        axes.set_ylabel('IoU (%)')
        axes.set_xlim(-0.7, positions[-1] + 0.7)
        axes.set_ylim(bottom=0)
        axes.yaxis.grid(True, color='0.9')
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
        axes.legend(
            frameon=False, ncols=min(len(runs), 4), loc='lower left', bbox_to_anchor=(0, 1.0)
        )
        if title:
            axes.set_title(title, loc='right', fontsize=9)
        files = [stem.with_name(f'{stem.name}.{ending}') for ending in ('pdf', 'png')]
        for file in files:
            figure.savefig(file, bbox_inches='tight', dpi=200)
        plt.close(figure)
    columns = ('class', *(result.name for result in runs))
    caption = f'{title + ": " if title else ""}IoU of each class, percent'
    return [*files, *write_table(rows, columns, stem, caption=caption, float_format='.2f')]
