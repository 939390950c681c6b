"""Table 6 of the supplement: AP by class and range for several models, published figures beside."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3pt_mm.reports.detection_published import CLASSES, TABLE6
from s3pt_mm.reports.tables import FORMATS, write_table

RangeTable = Mapping[str, Mapping[str, float]]


def range_rows(
    models: Mapping[str, RangeTable], *, published: Mapping[str, RangeTable] | None = TABLE6
) -> tuple[list[dict[str, object]], dict[str, str]]:
    """Rows and columns of the table: a row a class, a column for each range and model.

    Args:
        models: Model name -> range name -> class name or ``mAP`` -> AP, as
            :func:`s3pt_mm.detection.metrics.range_metric.range_figures` returns it.
        published: Figures of the same form, printed behind ours, in columns marked "published";
            None leaves them out. A range that was not published has no such column.

    Returns:
        Rows for :func:`write_table`, and its columns.

    Raises:
        ValueError: The models were not evaluated at the same ranges, or there is no model.
    """
    if not models:
        raise ValueError('a range table needs at least one model')
    ranges = {name: list(table) for name, table in models.items()}
    first = next(iter(ranges.values()))
    if any(names != first for names in ranges.values()):
        raise ValueError(f'the models were evaluated at different ranges: {ranges}')
    cells: dict[str, Mapping[str, float]] = {}
    columns = {'class': 'class'}
    for limit in first:
        for model, table in models.items():
            columns[f'{limit}/{model}'] = f'{model} {_heading(limit)}'
            cells[f'{limit}/{model}'] = table[limit]
        for model, table in (published or {}).items():
            if limit in table:
                columns[f'{limit}/published/{model}'] = f'{model} {_heading(limit)} (published)'
                cells[f'{limit}/published/{model}'] = table[limit]
    found = {label for column in cells.values() for label in column} - {'mAP'}
    known = [name for name in CLASSES if name in found]
    labels = [*known, *sorted(found - set(known)), 'mAP']
    rows: list[dict[str, object]] = [
        {'class': label.replace('_', ' '), **{key: c.get(label) for key, c in cells.items()}}
        for label in labels
    ]
    return rows, columns


def write_range_table(
    models: Mapping[str, RangeTable],
    path_stem: str | os.PathLike[str],
    *,
    published: Mapping[str, RangeTable] | None = TABLE6,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Writes the table as Markdown, CSV and LaTeX; see :func:`range_rows`."""
    rows, columns = range_rows(models, published=published)
    caption = (
        'AP of PETR by class for objects within a distance from the vehicle, truth and prediction '
        'alike. '
    )
    if any('published' in key for key in columns):
        caption += (
            'Columns marked "published" are quoted from the S3PT supplement (arXiv 2410.23085, '
            'Table 6: nuScenes, frozen ViT-S/16); the others were measured with this package.'
        )
    return write_table(rows, columns, path_stem, formats, caption=caption.strip())


def _heading(limit: str) -> str:
    return f'0-{limit.removesuffix("m")} m' if limit.endswith('m') else limit
