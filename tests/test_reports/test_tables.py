"""Tests of the shared table writer."""

import csv
import math

import pytest

from s3pt_mm.reports.tables import to_csv, to_latex, to_markdown, write_table

ROWS = [
    {'class': 'traffic_cone', 'ap': 0.123456789, 'n': 3},
    {'class': 'a|b & 50%', 'ap': math.nan, 'n': None},
]
COLUMNS = {'class': 'Class', 'ap': 'AP', 'n': 'Objects'}


def test_markdown_aligns_numbers_and_dashes_missing_figures() -> None:
    text = to_markdown(ROWS, COLUMNS, caption='Why.')
    assert text.splitlines() == [
        'Why.',
        '',
        '| Class | AP | Objects |',
        '| --- | ---: | ---: |',
        '| traffic_cone | 0.123 | 3 |',
        r'| a\|b & 50% | - | - |',
    ]


def test_csv_keeps_every_digit_and_reads_back() -> None:
    rows = list(csv.DictReader(to_csv(ROWS, COLUMNS).splitlines()))
    assert float(rows[0]['AP']) == ROWS[0]['ap']
    assert rows[1] == {'Class': 'a|b & 50%', 'AP': '', 'Objects': ''}


def test_latex_escapes_and_has_one_row_each() -> None:
    text = to_latex(ROWS, COLUMNS, caption='100%')
    assert r'\begin{tabular}{lrr}' in text
    assert r'\caption{100\%}' in text
    assert r'traffic\_cone & 0.123 & 3 \\' in text
    assert r'a|b \& 50\% & - & - \\' in text


def test_write_table_writes_all_formats_beside_each_other(tmp_path) -> None:
    paths = write_table(ROWS, COLUMNS, tmp_path / 'new' / 'table_v1.0')
    assert [path.name for path in paths] == [
        'table_v1.0.md', 'table_v1.0.csv', 'table_v1.0.tex',
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == sorted(
        path.name for path in paths
    )
    assert paths[1].read_text() == to_csv(ROWS, COLUMNS)


def test_columns_may_be_a_plain_list(tmp_path) -> None:
    (path,) = write_table([{'a': 1}], ['a', 'b'], tmp_path / 't', formats=['md'])
    assert path.read_text() == '| a | b |\n| ---: | --- |\n| 1 | - |\n'


@pytest.mark.parametrize(
    ('rows', 'columns', 'formats', 'message'),
    [
        ([{'ap': 1.0}], ['AP'], ['md'], r"row 0 has keys \['ap'\] that are no columns"),
        ([], ['AP'], ['html'], r"unknown table format \['html'\]"),
        ([], [], ['md'], 'at least one column'),
    ],
)
def test_mistakes_are_errors_and_write_nothing(tmp_path, rows, columns, formats, message) -> None:
    with pytest.raises(ValueError, match=message):
        write_table(rows, columns, tmp_path / 't', formats)
    assert not list(tmp_path.iterdir())
