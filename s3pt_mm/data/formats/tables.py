"""Arrow tables (feather, Parquet) through pyarrow, with errors that name the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from s3pt_mm.common.errors import DataError

T = TypeVar('T')


def _reading(path: Path, read: Callable[[], T]) -> T:
    """The result of ``read``, or an error that names the file."""
    if not path.is_file():
        raise DataError(path, 'no such file', 'Download the missing part')
    try:
        return read()
    except ImportError as error:
        raise DataError(
            path, f'reading it needs {error.name}', 'pip install "s3pt_mm[formats]"'
        ) from error
    except Exception as error:  # pyarrow has many
        raise DataError(
            path, f'not a readable table ({type(error).__name__}: {error})', 'Download it again'
        ) from error


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All rows of a small ``.feather`` or ``.parquet`` file.

    Raises:
        DataError: The file is missing, torn, or lacks a column; or pyarrow is not installed.
    """
    return _arrow(path, columns).to_pylist()


def read_columns(path: Path, columns: Sequence[str]) -> np.ndarray:
    """(rows, columns) float32 of a file of numbers; raises as :func:`read_table`."""
    table = _arrow(path, columns)
    return np.stack([table[name].to_numpy().astype(np.float32) for name in columns], axis=1)


def _arrow(path: Path, columns: Sequence[str] | None) -> Any:
    def read() -> Any:
        from pyarrow import feather, parquet

        reader = feather if path.suffix == '.feather' else parquet
        return reader.read_table(path, columns=list(columns) if columns else None)

    return _reading(path, read)


class LazyTable:
    """A large Parquet file: few columns at once, large values one row group at a time.

    Args:
        path: The file.
        keys: Columns that are read at once.

    Attributes:
        keys: One dict a row.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path = path
        self.keys = read_table(path, keys)
        self._groups: dict[str, tuple[int, Any]] = {}  # by column: the last row group read

    def value(self, row: int, column: str) -> Any:
        """One value.

        Raises:
            DataError: The file is torn or lacks the column.
        """
        return self._scalar(row, column).as_py()

    def array(self, row: int, column: str) -> np.ndarray:
        """A tensor stored as ``<column>.values`` and ``<column>.shape``."""
        shape = self._scalar(row, f'{column}.shape').as_py()
        return self._scalar(row, f'{column}.values').values.to_numpy().reshape(shape)

    def _scalar(self, row: int, column: str) -> Any:
        def read() -> Any:
            from pyarrow import parquet

            file, first = parquet.ParquetFile(self.path), 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if row < first + size:
                    if self._groups.get(column, (-1,))[0] != group:
                        values = file.read_row_group(group, columns=[column])[column]
                        self._groups[column] = (group, values)
                    return self._groups[column][1][row - first]
                first += size
            raise IndexError(f'row {row} of {first}')

        return _reading(self.path, read)
