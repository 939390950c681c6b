"""Info files as Parquet: one row a sample, nested columns, nothing that could run.

Any Parquet reader (pandas, DuckDB, Polars) opens such a file. ``metainfo`` is JSON in the schema's
metadata. A field that a sample lacks is a null of its row, and is absent again after reading.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import IO, Any

import numpy as np

from s3pt_mm.common.errors import DataError

_METAINFO = b's3pt_mm.metainfo'
_ROWS = 2048  # of a group: what is decoded at a time


def write_table(
    file: IO[bytes], metainfo: Mapping[str, Any], data_list: Sequence[Mapping[str, Any]], name: str
) -> None:
    """Write an info file.

    Args:
        file: open for writing bytes.
        metainfo: what JSON can hold.
        data_list: samples of plain containers and NumPy arrays.
        name: of the file, for messages.

    Raises:
        DataError: a value that no table can hold, or a field with values of several kinds.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        samples = _column(list(data_list))
        table = pa.Table.from_struct_array(samples) if len(data_list) else pa.table({})
        about = json.dumps(metainfo, default=_listed).encode()
        table = table.replace_schema_metadata({_METAINFO: about})
        parquet.write_table(table, file, compression='zstd', row_group_size=_ROWS)
    except (pa.ArrowException, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            name,
            f'samples do not make a table ({type(error).__name__}: {str(error)[:200]})',
            'Give each field one kind of value, or write a .pkl',
        ) from error


def read_table(file: str | IO[bytes], without: Collection[str] = ()) -> dict[str, Any]:
    """Read an info file.

    Args:
        file: path, or open for reading bytes.
        without: names of fields, at any depth, that are not needed; they are not even decoded.

    Returns:
        ``dict(metainfo=dict, data_list=list of dict)``; no ``metainfo`` if the file has none.

    Raises:
        pyarrow.ArrowException: the file is torn or no Parquet.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(file) as source:
        paths = [source.schema.column(i).path for i in range(len(source.schema))]
        skipped = set(without)
        wanted = [path for path in paths if skipped.isdisjoint(path.split('.'))]
        samples: list[dict] = []
        for batch in source.iter_batches(_ROWS, columns=wanted, use_threads=False):
            samples += _decode(batch.to_struct_array())
        about = (source.schema_arrow.metadata or {}).get(_METAINFO)
    found: dict[str, Any] = {} if about is None else {'metainfo': json.loads(about)}
    return {**found, 'data_list': samples}


def _listed(value: Any) -> Any:
    """NumPy's arrays and numbers as lists and numbers."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _column(values: list[Any]) -> Any:
    """Values of one field as an Arrow array; fields of mappings in the order they appear.

    pyarrow's own conversion sorts them, and the order of cameras has a meaning.
    """
    import pyarrow as pa

    values = [_listed(value) for value in values]
    known = [value for value in values if value is not None]
    if known and isinstance(known[0], Mapping):
        # Parquet knows no struct without fields: one of nulls, which is absent after reading.
        names = list(dict.fromkeys(name for value in known for name in value)) or ['_']
        columns = [
            _column([None if value is None else value.get(name) for value in values])
            for name in names
        ]
        absent = pa.array([value is None for value in values])
        return pa.StructArray.from_arrays(columns, names, mask=absent)
    if any(isinstance(value, (list, tuple)) and _nested(value) for value in known):
        ends = np.cumsum([0 if value is None else len(value) for value in values]).tolist()
        starts = [
            None if value is None else start
            for value, start in zip(values, [0, *ends], strict=False)
        ]
        items = _column([item for value in known for item in value])
        return pa.ListArray.from_arrays(pa.array([*starts, ends[-1]], pa.int32()), items)
    return pa.array(values)


def _nested(values: Sequence[Any]) -> bool:
    return bool(values) and isinstance(values[0], (Mapping, list, tuple, np.ndarray))


def _decode(array: Any) -> list[Any]:
    """An Arrow array as Python values; pyarrow's own ``to_pylist`` is several times slower."""
    import pyarrow as pa

    block = _block(array)
    if block is not None:
        return block.tolist()
    if pa.types.is_struct(array.type):
        values: Iterator[Any] | list[Any] = _rows(array)
    elif _is_list(array.type):
        items = _decode(array.values)
        values = [items[start:end] for start, end in pairwise(array.offsets.to_pylist())]
    else:
        return array.to_pylist()
    if array.null_count:
        return [
            v if valid else None
            for v, valid in zip(values, array.is_valid().to_pylist(), strict=True)
        ]
    return list(values)


def _rows(array: Any) -> Iterator[dict[str, Any]]:
    """Rows of a struct; a field that is null is left out."""
    names = [field.name for field in array.type]
    fields = [array.field(i) for i in range(len(names))]
    rows = zip(*map(_decode, fields), strict=True)
    if any(field.null_count for field in fields):
        return ({k: v for k, v in zip(names, row, strict=True) if v is not None} for row in rows)
    return (dict(zip(names, row, strict=True)) for row in rows)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _block(array: Any) -> np.ndarray | None:
    """Numbers, or lists of numbers of one shape, as one NumPy array; None for anything else."""
    import pyarrow as pa

    if array.null_count or not len(array):
        return None
    if _is_list(array.type):
        starts = array.offsets.to_numpy()
        lengths = np.diff(starts)
        if not lengths[0] or (lengths != lengths[0]).any():
            return None
        inner = _block(array.values.slice(starts[0], starts[-1] - starts[0]))
        return None if inner is None else inner.reshape(-1, lengths[0], *inner.shape[1:])
    if pa.types.is_primitive(array.type):
        return array.to_numpy(zero_copy_only=False)
    return None
