"""Tables, a figure and pictures of ``s3pt-clusters``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from s3pt_mm.common.files import replacing, write_text

FIGURES = {
    'purity': 'purity',
    'ari': 'ARI',
    'boundary_f1': 'boundary F1',
    'depth_explained': 'depth variance explained',
    'clusters_found': 'clusters',
    'valid': 'valid in both views',
    'valid_tokens': 'tokens in valid clusters',
    'recall_small': 'recall small',
    'recall_medium': 'recall medium',
    'recall_large': 'recall large',
}


def mean_and_spread(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One line a setting: the mean over seeds and, as ``<figure> sd``, their standard deviation.

    Args:
        rows: One a seed and setting: ``setting``, ``seed`` and figures.
    """
    frame = pd.DataFrame(rows)
    groups = frame.drop(columns='seed').groupby('setting', sort=False)
    # A figure that no image has (depth without LiDAR) stays out.
    mean = groups.mean(numeric_only=True).dropna(axis=1, how='all')
    return mean.join(groups.std(numeric_only=True)[mean.columns].add_suffix(' sd'))


def to_markdown(table: pd.DataFrame) -> str:
    """Mean and deviation in one cell, as ``0.512 +- 0.004``."""
    names = [name for name in table.columns if not name.endswith(' sd')]
    lines = ['| setting | ' + ' | '.join(FIGURES.get(n, n) for n in names) + ' |']
    lines.append('| --- |' + ' ---: |' * len(names))
    for setting, row in table.iterrows():
        cells = []
        for name in names:
            digits = 1 if row[name] >= 2 else 3
            spread = row[f'{name} sd']
            cell = '-' if np.isnan(row[name]) else f'{row[name]:.{digits}f}'
            cells.append(cell if np.isnan(spread) else f'{cell} ± {spread:.{digits}f}')
        lines.append(f'| {setting} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def write_tables(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]], stem: Path
) -> list[Path]:
    """``<stem>.csv``, ``.md`` and ``.png`` of the figures, ``<stem>_classes.*`` of the recalls."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, given in (('', rows), ('_classes', classes)):
        if not given:
            continue
        table = mean_and_spread(given)
        for ending, text in (('csv', table.to_csv()), ('md', to_markdown(table))):
            path = stem.with_name(f'{stem.name}{suffix}.{ending}')
            write_text(path, text)
            written.append(path)
    return [*written, write_figure(mean_and_spread(rows), stem.with_suffix('.png'))]


def write_figure(table: pd.DataFrame, path: Path) -> Path:
    """A panel of bars for each figure, one bar a setting, with the seeds' deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in FIGURES if name in table.columns]
    columns = min(5, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(
        figsize=(1.5 + 2.2 * columns, lines * (0.8 + 0.22 * len(table))), layout='constrained'
    )
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        axis.barh(list(table.index), table[name], xerr=table[f'{name} sd'].fillna(0))
        axis.set_title(FIGURES[name], fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].invert_yaxis()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format='png')
    return path


def draw_views(
    pixels: Sequence[np.ndarray], maps: Sequence[tuple[str, np.ndarray]], valid_only: bool = True
) -> np.ndarray:
    """Both views, one below the other, and beside them their clusters for each setting.

    Args:
        pixels: two (S, S, 3) RGB views.
        maps: (title, (2, N) cluster or segment of each token), -1 is left as it is.
        valid_only: grey what only one view has.

    Returns:
        (height, width, 3) RGB uint8.
    """
    size = pixels[0].shape[0]
    columns = [np.vstack([_titled('views', size), *pixels])]
    for title, numbers in maps:
        side = round(numbers.shape[1] ** 0.5)
        both = np.intersect1d(*numbers)
        # Neighbouring numbers get far colours: the golden angle of hues.
        hue = (numbers * 180 * 0.618033 % 180).astype(np.uint8)
        hsv = np.stack([hue, np.full_like(hue, 200), np.full_like(hue, 255)], -1)
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        if valid_only:
            colour[~np.isin(numbers, both)] = 90
        drawn = []
        for view in (0, 1):
            layer = cv2.resize(
                colour[view].reshape(side, side, 3), (size, size), interpolation=cv2.INTER_NEAREST
            )
            blend = (0.4 * pixels[view] + 0.6 * layer).astype(np.uint8)
            empty = (numbers[view] < 0).reshape(side, side).astype(np.uint8)
            empty = cv2.resize(empty, (size, size), interpolation=cv2.INTER_NEAREST)
            drawn.append(np.where(empty[..., None] > 0, pixels[view] // 2, blend))
        columns.append(np.vstack([_titled(title, size), *drawn]))
    return np.hstack(columns)


def _titled(text: str, width: int) -> np.ndarray:
    strip = np.full((22, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
