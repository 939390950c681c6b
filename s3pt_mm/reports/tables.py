"""One table writer for every report of the package: Markdown, CSV and LaTeX from the same rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd

from s3pt_mm.common.files import write_text

Row = Mapping[str, object]
Columns = Sequence[str] | Mapping[str, str]

FORMATS = ('md', 'csv', 'tex')
EMPTY_CELL = '-'

_LATEX_ESCAPES = {
    '\\': r'\textbackslash{}', '&': r'\&', '%': r'\%', '$': r'\$', '#': r'\#', '_': r'\_',
    '{': r'\{', '}': r'\}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
}  # fmt: skip


def write_table(
    rows: Sequence[Row],
    columns: Columns,
    path_stem: str | os.PathLike[str],
    formats: Sequence[str] = FORMATS,
    *,
    caption: str = '',
    float_format: str = '.3f',
) -> list[Path]:
    """Writes the same table in several formats, each file replaced as a whole.

    Args:
        rows: One mapping per row, keyed by column. ``None``, NaN and an absent key all mean "no
            figure": a dash in Markdown and LaTeX, an empty field in CSV.
        columns: Keys in the order they are printed, or a mapping from key to printed heading.
        path_stem: Path without ending; ``.md``, ``.csv`` and ``.tex`` are appended. Missing
            folders are made.
        formats: Which of ``md``, ``csv`` and ``tex`` to write.
        caption: A sentence above the table: a paragraph in Markdown, ``\\caption`` in LaTeX; CSV
            has no place for it.
        float_format: Format of floats in Markdown and LaTeX. CSV keeps every digit, so that a
            spreadsheet can compute with the figures.

    Returns:
        The paths written, in the order of ``formats``.

    Raises:
        ValueError: A format is unknown, there is no column, or a row has a key that is no column
            (a misspelt key would otherwise be an empty cell).
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f'unknown table format {unknown}; choose from {list(FORMATS)}')
    written = dict(
        md=to_markdown(rows, columns, caption=caption, float_format=float_format),
        csv=to_csv(rows, columns),
        tex=to_latex(rows, columns, caption=caption, float_format=float_format),
    )
    stem = Path(path_stem)
    paths = [stem.with_name(f'{stem.name}.{name}') for name in formats]
    for path, name in zip(paths, formats, strict=True):
        write_text(path, written[name])
    return paths


def to_markdown(
    rows: Sequence[Row], columns: Columns, *, caption: str = '', float_format: str = '.3f'
) -> str:
    """The table as Markdown; columns whose cells are all numbers are aligned right."""
    frame = _frame(rows, columns)
    cells = _cells(frame, float_format).map(lambda cell: cell.replace('|', r'\|'))
    lines = [frame.columns, ['---:' if right else '---' for right in _numeric(frame)]]
    lines += cells.values.tolist()
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'{caption}\n\n{table}\n' if caption else f'{table}\n'


def to_csv(rows: Sequence[Row], columns: Columns) -> str:
    """The table as CSV with every digit of every float."""
    return _frame(rows, columns).to_csv(index=False, lineterminator='\n')


def to_latex(
    rows: Sequence[Row], columns: Columns, *, caption: str = '', float_format: str = '.3f'
) -> str:
    """The table as a LaTeX ``table`` with ``booktabs`` rules, ready for ``\\input``."""
    frame = _frame(rows, columns)
    cells = _cells(frame, float_format).map(_escaped).rename(columns=_escaped)
    return cells.style.hide(axis='index').to_latex(
        caption=_escaped(caption) or None,
        column_format=''.join('r' if right else 'l' for right in _numeric(frame)),
        hrules=True,
        position_float='centering',
    )


def _frame(rows: Sequence[Row], columns: Columns) -> pd.DataFrame:
    headings = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
    if not headings:
        raise ValueError('a table needs at least one column')
    for number, row in enumerate(rows):
        strangers = [key for key in row if key not in headings]
        if strangers:
            raise ValueError(
                f'row {number} has keys {strangers} that are no columns; columns: {list(headings)}'
            )
    # As objects: one missing figure must not make floats of the other integers.
    cells = [[row.get(key) for key in headings] for row in rows]
    return pd.DataFrame(cells, columns=list(headings.values()), dtype=object)


def _cells(frame: pd.DataFrame, float_format: str) -> pd.DataFrame:
    def cell(value: Any) -> str:
        if pd.isna(value):
            return EMPTY_CELL
        is_float = isinstance(value, Real) and not isinstance(value, Integral)
        return format(float(value), float_format) if is_float else str(value)

    return frame.map(cell)


def _numeric(frame: pd.DataFrame) -> list[bool]:
    found = [frame.iloc[:, place].dropna() for place in range(frame.shape[1])]
    return [len(c) > 0 and not any(isinstance(v, str | bool) for v in c) for c in found]


def _escaped(text: str) -> str:
    return ''.join(_LATEX_ESCAPES.get(character, character) for character in text)
