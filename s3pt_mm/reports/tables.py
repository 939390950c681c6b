"""One table writer for every report of the package: Markdown, CSV and LaTeX from the same rows."""

import csv
import io
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

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
    headings = _headings(columns)
    _check(rows, headings, formats)
    writers: dict[str, Callable[[], str]] = {
        'md': lambda: to_markdown(rows, headings, caption=caption, float_format=float_format),
        'csv': lambda: to_csv(rows, headings),
        'tex': lambda: to_latex(rows, headings, caption=caption, float_format=float_format),
    }
    stem = Path(path_stem)
    paths = []
    for name in formats:
        path = stem.with_name(f'{stem.name}.{name}')
        write_text(path, writers[name]())
        paths.append(path)
    return paths


def to_markdown(
    rows: Sequence[Row], columns: Columns, *, caption: str = '', float_format: str = '.3f'
) -> str:
    """The table as Markdown; columns whose cells are all numbers are aligned right."""
    headings = _headings(columns)
    lines = [caption, ''] if caption else []
    lines.append(_markdown_line(headings.values()))
    rules = ['---:' if _is_numeric(rows, key) else '---' for key in headings]
    lines.append(_markdown_line(rules))
    for row in rows:
        cells = (_cell(row.get(key), float_format) for key in headings)
        lines.append(_markdown_line(cell.replace('|', r'\|') for cell in cells))
    return '\n'.join(lines) + '\n'


def to_csv(rows: Sequence[Row], columns: Columns) -> str:
    """The table as CSV with every digit of every float."""
    headings = _headings(columns)
    buffer = io.StringIO(newline='')
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow(headings.values())
    for row in rows:
        values = (row.get(key) for key in headings)
        writer.writerow(['' if _is_empty(value) else value for value in values])
    return buffer.getvalue()


def to_latex(
    rows: Sequence[Row], columns: Columns, *, caption: str = '', float_format: str = '.3f'
) -> str:
    """The table as a LaTeX ``table`` with ``booktabs`` rules, ready for ``\\input``."""
    headings = _headings(columns)
    alignment = ''.join('r' if _is_numeric(rows, key) else 'l' for key in headings)
    lines = [r'\begin{table}', r'\centering']
    if caption:
        lines.append(rf'\caption{{{_escape_latex(caption)}}}')
    lines += [rf'\begin{{tabular}}{{{alignment}}}', r'\toprule']
    lines.append(' & '.join(_escape_latex(text) for text in headings.values()) + r' \\')
    lines.append(r'\midrule')
    for row in rows:
        cells = (_cell(row.get(key), float_format) for key in headings)
        lines.append(' & '.join(_escape_latex(cell) for cell in cells) + r' \\')
    lines += [r'\bottomrule', r'\end{tabular}', r'\end{table}']
    return '\n'.join(lines) + '\n'


def _headings(columns: Columns) -> dict[str, str]:
    if isinstance(columns, Mapping):
        return dict(columns)
    return {key: key for key in columns}


def _check(rows: Sequence[Row], headings: Mapping[str, str], formats: Sequence[str]) -> None:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f'unknown table format {unknown}; choose from {list(FORMATS)}')
    if not headings:
        raise ValueError('a table needs at least one column')
    for number, row in enumerate(rows):
        strangers = [key for key in row if key not in headings]
        if strangers:
            raise ValueError(
                f'row {number} has keys {strangers} that are no columns; columns: {list(headings)}'
            )


def _is_empty(value: object) -> bool:
    return value is None or (_is_float(value) and math.isnan(value))


def _is_float(value: object) -> bool:
    """True for Python's and NumPy's floats of any width, False for integers."""
    return isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)


def _is_numeric(rows: Sequence[Row], key: str) -> bool:
    values = [row.get(key) for row in rows]
    numbers = [value for value in values if not _is_empty(value)]
    return bool(numbers) and not any(isinstance(value, str | bool) for value in numbers)


def _cell(value: object, float_format: str) -> str:
    if _is_empty(value):
        return EMPTY_CELL
    if _is_float(value):
        return format(float(value), float_format)
    return str(value)


def _markdown_line(cells: Iterable[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def _escape_latex(text: str) -> str:
    return ''.join(_LATEX_ESCAPES.get(character, character) for character in text)
