"""Reading and writing info files (mmdet3d's v2 format) without trusting them.

Two forms: Parquet (``.parquet``, what this package writes) and mmdetection3d's pickles (``.pkl``).
"""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Collection, Sequence
from typing import Any

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import replacing
from s3pt_mm.common.info_tables import read_table, write_table
from s3pt_mm.common.pickles import ForeignGlobalError, load_plain_pickle

INFO_VERSIONS = ('1.0', '1.1', 'mmdet3d_v1.4')  # the last of Waymo's: the same fields
_RECREATE = 'create it again with s3pt-data nuscenes'


def load_info_file(
    path: str | os.PathLike[str], *, without: Collection[str] = ()
) -> dict[str, Any]:
    """Read an info file.

    Args:
        path: ``.parquet`` or a pickle.
        without: names of fields, at any depth, that are not needed. A Parquet file does not even
            decode them; a pickle has them all the same.

    Returns:
        ``dict(metainfo=dict, data_list=list of dict)``.

    Raises:
        DataError: if the file is missing, torn, of another version, or wants anything but data.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise DataError(
            path,
            'no such info file',
            'Give its path in ann_file (relative to data_root, or absolute), or ' + _RECREATE,
        )
    collecting = gc.isenabled()
    gc.disable()  # a million images are tens of millions of small objects and no cycle
    try:
        if path.endswith('.parquet'):
            infos = read_table(path, without)
        else:
            with open(path, 'rb') as file:
                infos = load_plain_pickle(file)
    except ForeignGlobalError as error:
        raise DataError(
            path,
            f'the pickle asks for the foreign global {error}',
            'An info file holds only plain containers and NumPy arrays; do not use this file',
        ) from None
    except Exception as error:  # a torn file can fail in any way
        kind = 'Parquet file' if path.endswith('.parquet') else 'pickle'
        raise DataError(
            path,
            f'not a readable {kind} ({type(error).__name__}: {str(error)[:200]})',
            f'The file is torn or not an info file; {_RECREATE}',
        ) from error
    finally:
        if collecting:
            gc.enable()
    if isinstance(infos, dict) and 'infos' in infos:
        raise DataError(
            path,
            "this is mmdetection3d's old format (keys 'infos' and 'metadata')",
            f"{_RECREATE.capitalize()}, or convert it with mmdetection3d's update_infos_to_v2.py",
        )
    if not isinstance(infos, dict) or not {'metainfo', 'data_list'} <= infos.keys():
        keys = sorted(map(str, infos)) if isinstance(infos, dict) else type(infos).__name__
        raise DataError(
            path,
            f"expected the keys 'metainfo' and 'data_list', found {keys}",
            _RECREATE.capitalize(),
        )
    version = str(infos['metainfo'].get('info_version', '1.1'))
    if version not in INFO_VERSIONS:
        raise DataError(
            path,
            f'info_version is {version}, this package reads {", ".join(INFO_VERSIONS)}',
            _RECREATE.capitalize(),
        )
    return infos


def write_info_file(
    path: str | os.PathLike[str], metainfo: dict[str, Any], data_list: Sequence[dict[str, Any]]
) -> None:
    """Write an info file atomically: readers see the old file or the whole new one.

    Args:
        path: ``.parquet``, or ``.pkl`` for tools that read no other.
        metainfo: see docs/data.md.
        data_list: samples.

    Raises:
        DataError: for Parquet: a field with values of several kinds.
    """
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        if str(path).endswith('.parquet'):
            write_table(file, metainfo, data_list, str(path))
        else:
            pickle.dump({'metainfo': metainfo, 'data_list': list(data_list)}, file, protocol=4)
