"""A dataset's images stored once at the size that crops need, its calibration with them.

Decoding is most of what a view costs. Where every crop has twice its view's pixels, as nuScenes'
1600 x 900 has, the pipeline decodes JPEGs at half size each time; here that is done once.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from s3pt_mm.common.errors import DataError, fields_of
from s3pt_mm.common.files import inside, read_file, write_bytes, write_json
from s3pt_mm.common.workers import in_processes
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.data.datasets.nuscenes_images import prefixes_of
from s3pt_mm.data.image_files import find_images
from s3pt_mm.data.transforms.image import EncodedImage

SETTINGS = 'prepared_images.json'
# Rows 0 and 1 of these are in pixels.
_IN_PIXELS = ('cam2img', 'lidar2img')


def prepare_image(
    pair: tuple[str, str], *, reduction: int, quality: int, upright: bool = False
) -> bool:
    """Write one image as :func:`encoded_image` makes it; False where it is there already.

    A file has its name only once it is whole, so one that exists is not read.

    Args:
        pair: Source and target.
        reduction: 1, 2, 4 or 8.
        quality: Of the JPEG, 1 to 100.
        upright: Turn the pixels as EXIF says.

    Raises:
        DataError: If the source is missing or torn.
    """
    source, target = pair
    if os.path.exists(target):
        return False
    data = encoded_image(source, reduction=reduction, quality=quality, upright=upright)
    write_bytes(target, data, tidy=False)
    return True


def encoded_image(source: str, *, reduction: int, quality: int, upright: bool) -> bytes:
    """A JPEG of an image 1 / ``reduction`` as large; with 1 the file's own bytes, once they decode.

    Raises:
        DataError: If the source is missing or torn.
    """
    data = source_bytes(source)
    image = EncodedImage(data, source, upright=upright)
    pixels = image.decode(reduction if image.is_jpeg else 1)
    if reduction == 1:
        return data
    if not image.is_jpeg:
        height, width = (-(-side // reduction) for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    # Colour at full resolution: what a camera's JPEG has of it is just what half its size can hold.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    written, encoded = cv2.imencode('.jpg', pixels[..., ::-1], options)
    if not written:
        raise DataError(source, 'OpenCV cannot encode it as JPEG', 'Leave it out')
    return encoded.tobytes()


def source_bytes(source: str) -> bytes:
    """A source file's content.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return read_file(source)
    except OSError as error:
        raise DataError(source, f'cannot read it ({error.strerror})', 'Check --root') from error


def prepare_all(
    pairs: Iterable[tuple[str, str]],
    out: Path,
    *,
    reduction: int,
    quality: int,
    workers: int,
    upright: bool = False,
    track: Callable[[Iterator[bool]], Iterable[bool]] = iter,
) -> int:
    """Write all images; what an interrupted call has written is kept.

    Args:
        pairs: Sources and targets.
        out: Folder that remembers its settings.
        reduction: See :func:`prepare_image`.
        quality: See :func:`prepare_image`.
        workers: Processes; 0 works in this one.
        upright: See :func:`prepare_image`.
        track: Wraps the results as they come, for a progress bar.

    Returns:
        Images written now.

    Raises:
        DataError: For a bad image, or where ``out`` was begun with other settings.
    """
    settings = dict(reduction=reduction, quality=quality)
    same_settings(out, settings)
    one = partial(prepare_image, **settings, upright=upright)
    return sum(map_processes(one, pairs, workers=workers, chunksize=16, track=track))


def map_processes(
    one: Callable[[Any], Any],
    jobs: Iterable[Any],
    *,
    workers: int,
    track: Callable[[Iterator[Any]], Iterable[Any]],
    chunksize: int = 1,
) -> list[Any]:
    """``one`` of each job in order; ``workers=0`` works in this process, an error ends all."""
    if not workers:
        return list(track(map(one, jobs)))
    return list(track(in_processes(one, jobs, workers, chunksize=chunksize)))


def same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Remember in ``out`` how it is made, or see that it was begun in the same way."""
    file = out / SETTINGS
    if not file.exists():
        write_json(file, settings)
    elif (before := json.loads(file.read_text())) != settings:
        raise DataError(file, f'begun with {before}, now {settings}', 'Use another --out')


def folder_pairs(folder: Path, out: Path, reduction: int) -> list[tuple[str, str]]:
    """Every image below a folder, and where it goes."""
    paths = map(Path, find_images(folder).paths)
    return [(str(folder / path), str(_renamed(out / path, reduction))) for path in paths]


def _renamed(path: Path, reduction: int) -> Path:
    if reduction == 1 or path.suffix.lower() in ('.jpg', '.jpeg'):
        return path
    return path.with_name(path.name + '.jpg')


class PreparedInfos:
    """An info file whose images are stored smaller: pairs to write, then the new file.

    Args:
        source: Info file.
        root: Folder of the data.
        out: Folder of the new data; its layout is the old one's.
        reduction: 1, 2, 4 or 8.

    Attributes:
        pairs: Sources and targets of images.
        images: Each image's part of the new file, and its place below ``out``.
        sweeps: Each sweep's part of the new file, and its place below ``root``.
    """

    def __init__(self, source: Path, root: Path, out: Path, reduction: int) -> None:
        infos = load_info_file(source)
        self.source, self.root, self.out, self.reduction = source, root, out, reduction
        self._prefixes = prefixes_of(infos['metainfo'])
        self.pairs: list[tuple[str, str]] = []
        self.images: list[tuple[dict[str, Any], str]] = []
        self.sweeps: list[tuple[dict[str, Any], Path]] = []
        self.metainfo = {**infos['metainfo'], 'prepared_reduction': reduction}
        with fields_of(source, 'See docs/data.md for the fields that an info file needs'):
            self.data_list = [self._sample(info) for info in infos['data_list']]

    def write(self, name: str) -> Path:
        """Link the folders of LiDAR and depth maps; write the info file ``name`` into ``out``."""
        maps = {Path(image['depth_map']) for image, _ in self.images if image.get('depth_map')}
        for folder in sorted({place.parent for place in maps.union(p for _, p in self.sweeps)}):
            if folder.is_absolute():  # a depth map that is found wherever the info file lies
                continue
            link = self.out / folder
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((self.root / folder).resolve(), target_is_directory=True)
        write_info_file(self.out / name, self.metainfo, self.data_list)
        return self.out / name

    def _sample(self, info: dict[str, Any]) -> dict[str, Any]:
        info = copy.deepcopy(info)
        self._entry(info, key_frame=True)
        for sweep in info.get('image_sweeps', ()):
            self._entry(sweep, key_frame=False)
        return info

    def _entry(self, entry: dict[str, Any], *, key_frame: bool) -> None:
        lidar = entry.get('lidar_points') or {}
        if lidar.get('lidar_path'):
            place = self._place(lidar['lidar_path'], 'pts' if key_frame else None)
            self.sweeps.append((lidar, place))
        for camera, image in entry['images'].items():
            place = self._place(image['img_path'], camera if key_frame else None)
            target = _renamed(place, self.reduction)
            self.pairs.append((str(self.root / place), str(self.out / target)))
            self.images.append((image, str(target)))
            if not os.path.isabs(image.get('depth_map') or '/'):
                inside(Path(), image['depth_map'], self.source)
            image['img_path'] = str(_renamed(Path(image['img_path']), self.reduction))
            for side in ('width', 'height'):
                if image.get(side):
                    image[side] = -(-image[side] // self.reduction)
            for name in _IN_PIXELS:
                if image.get(name) is not None:
                    matrix = np.array(image[name], dtype=np.float64)
                    matrix[:2] /= self.reduction
                    image[name] = matrix.tolist()

    def _place(self, path: str, prefix: str | None) -> Path:
        """A file relative to the root: with the dataset's default prefix, or as it is written."""
        bare = inside(Path(), path, self.source)
        prefixed = Path(self._prefixes.get(prefix or '', '')) / bare
        return prefixed if (self.root / prefixed).exists() else bare
