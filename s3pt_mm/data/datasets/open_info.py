"""An info file on its own, without a config that says where its data lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages


def open_info(
    info: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, **options: Any
) -> NuScenesImages:
    """An info file of any layout, its data's folder looked for.

    Args:
        info: the file.
        root: folder of the data. Default: the file's folder, one of the two above it or the working
            directory, wherever its images are.
        **options: of :class:`NuScenesImages`.

    Raises:
        DataError: the images are in none of these.
    """
    path = Path(info).expanduser().absolute()
    places = [path.parent, *path.parents[1:3], Path.cwd()] if root is None else [Path(root)]
    for place in places:
        dataset = NuScenesImages(ann_file=str(path), data_root=str(place), **options)
        if root is not None or _has_images(dataset):
            return dataset
    example = dataset.get_data_info(0)['img_path']
    raise DataError(
        path,
        f'its images lie below none of {", ".join(map(str, places))}, e.g. {example}',
        'Name the folder of the data with --root',
    )


def _has_images(dataset: NuScenesImages) -> bool:
    """Whether one of three images is there, or what the file says cannot be used anyway."""
    for index in {0, len(dataset) // 2, len(dataset) - 1}:
        try:
            if os.path.isfile(dataset.get_data_info(index)['img_path']):
                return True
        except DataError:
            return True
    return False
