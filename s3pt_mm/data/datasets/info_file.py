"""Reading and writing info files (mmdet3d's v2 format) without trusting them."""

from __future__ import annotations

import gc
import io
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import replacing

INFO_VERSIONS = ('1.0', '1.1')
_RECREATE = 'create it again with tools/create_data.py nuscenes'
# Plain containers need no global at all; NumPy arrays and scalars need these.
_ALLOWED_GLOBALS = frozenset(
    [
        ('collections', 'OrderedDict'),
        ('numpy', 'dtype'),
        ('numpy', 'ndarray'),
        *(
            (f'numpy.{core}.multiarray', name)
            for core in ('core', '_core')
            for name in ('_reconstruct', 'scalar')
        ),
        *((f'numpy.{core}.numeric', '_frombuffer') for core in ('core', '_core')),
    ]
)


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain containers and NumPy arrays; refuses every other global, so no code runs."""

    def __init__(self, file: io.BufferedIOBase, path: str) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED_GLOBALS:
            return super().find_class(module, name)
        raise DataError(
            self._path,
            f'the pickle asks for the foreign global {module}.{name}',
            'An info file holds only plain containers and NumPy arrays; do not use this file',
        )


def load_info_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read an info file.

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
        with open(path, 'rb') as file:
            infos = _PlainUnpickler(file, path).load()
    except DataError:
        raise
    except Exception as error:  # a torn pickle can fail in any way
        raise DataError(
            path,
            f'not a readable pickle ({type(error).__name__}: {error})',
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
            f'info_version is {version}, this package reads {" and ".join(INFO_VERSIONS)}',
            _RECREATE.capitalize(),
        )
    return infos


def write_info_file(
    path: str | os.PathLike[str], metainfo: dict[str, Any], data_list: Sequence[dict[str, Any]]
) -> None:
    """Write an info file atomically: readers see the old file or the whole new one."""
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        pickle.dump({'metainfo': metainfo, 'data_list': list(data_list)}, file, protocol=4)
