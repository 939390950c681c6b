"""Fig. 2 of the supplement: at which distances vehicles, pedestrians and cyclists are."""

import argparse
import os
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.reports.distances import (
    CAP,
    GroupDistances,
    distance_summary,
    object_distances,
)
from s3pt_mm.reports.tables import write_table

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7')
"""Okabe and Ito's palette: told apart by colour-blind readers, and in grey by its line styles."""
_STYLES = ('-', '--', '-.', ':')
SHARE_RANGES = (20.0, 30.0, 60.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``s3pt-report distances``."""
    parser.add_argument('infos', nargs='+', help='info files; their objects are taken together')
    parser.add_argument('--out', required=True, help='path without ending, e.g. out/fig2')
    parser.add_argument('--cap', type=float, default=CAP, help='metres; default %(default)g')
    parser.add_argument(
        '--valid-only', action='store_true', help='leave out objects without LiDAR and radar points'
    )


def run(args: argparse.Namespace) -> None:
    """Read the info files; write figure and numbers.

    Raises:
        ValueError: The files number their classes differently.
    """
    contents = [load_info_file(path) for path in args.infos]
    categories = contents[0]['metainfo'].get('categories')
    if any(content['metainfo'].get('categories') != categories for content in contents):
        raise ValueError(f'{args.infos} number their classes differently')
    distances = object_distances(
        (info for content in contents for info in content['data_list']),
        categories=categories,
        cap=args.cap,
        valid_only=args.valid_only,
    )
    source = ', '.join(os.path.basename(path) for path in args.infos)
    paths = write_distances(distances, args.out, cap=args.cap, source=source)
    print(next(path for path in paths if path.suffix == '.md').read_text())
    print('written:', *paths)


def draw_distances(
    distances: Mapping[str, GroupDistances], *, cap: float = CAP, bin_width: float = 2.5
) -> Figure:
    """Share of each group's objects per metre, as a step histogram up to the cap.

    Args:
        distances: Group name -> distances, of
            :func:`s3pt_mm.reports.distances.object_distances`.
        cap: Metres at which the axis ends.
        bin_width: Metres; the last bin ends at the cap.

    Raises:
        ValueError: No group has an object within the cap.
    """
    if not any(len(values.within) for values in distances.values()):
        raise ValueError(f'no object within {cap:g} m: nothing to draw')
    figure = Figure(figsize=(5.2, 3.2), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    edges = np.append(np.arange(0, cap, bin_width), cap)
    for (group, values), colour, style in zip(distances.items(), cycle(COLOURS), cycle(_STYLES)):
        if not len(values.within):
            continue
        total = len(values.within) + values.beyond
        counts, _ = np.histogram(values.within, edges)
        share = 100 * counts / total / np.diff(edges)
        label = f'{group} (n = {total:,})'
        axes.stairs(share, edges, label=label, color=colour, linestyle=style, linewidth=1.6)
        median = float(np.median(values.within))
        axes.axvline(median, color=colour, linestyle=style, linewidth=0.7, alpha=0.7)
    axes.set_xlim(0, cap)
    axes.set_ylim(bottom=0)
    axes.set_xlabel('distance from the vehicle (m); thin lines: medians')
    axes.set_ylabel('share of the class (% per m)')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    return figure


def write_distances(
    distances: Mapping[str, GroupDistances],
    path_stem: str | os.PathLike[str],
    *,
    cap: float = CAP,
    source: str = '',
) -> list[Path]:
    """Writes the figure as PDF and PNG and the numbers as Markdown, CSV and LaTeX.

    Args:
        distances: Group name -> distances.
        path_stem: Path without ending.
        cap: Metres.
        source: What the distances were read from, for the caption.
    """
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure = draw_distances(distances, cap=cap)
    paths = []
    for ending in ('pdf', 'png'):
        path = stem.with_name(f'{stem.name}.{ending}')
        figure.savefig(path, dpi=200)
        paths.append(path)
    ranges = tuple(limit for limit in SHARE_RANGES if limit <= cap)
    rows = distance_summary(distances, ranges=ranges)
    quartiles = ('first quartile', 'median', 'third quartile')
    columns = {
        'group': 'group', 'objects': 'objects', 'beyond cap': f'beyond {cap:g} m',
        **{name: f'{name} (m)' for name in quartiles},
        **{f'within {limit:g} m': f'within {limit:g} m' for limit in ranges},
    }  # fmt: skip
    caption = f'Distance of objects from the vehicle{f", {source}" if source else ""}; quartiles '
    caption += f'of those within {cap:g} m.'
    return paths + write_table(rows, columns, stem, caption=caption)
