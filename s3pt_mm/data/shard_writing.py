"""A data set's files packed into few tar files, and the info file that says where each lies.

A disk of a cluster serves few large files better than a million small ones. The tar files are
WebDataset's; unlike there, any image is read at any time, through its offset, so sampling, exact
resumption and ranks are those of single files.
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import replacing
from s3pt_mm.data.datasets.info_file import write_info_file
from s3pt_mm.data.image_files import SUFFIXES
from s3pt_mm.data.prepared_images import (
    PreparedInfos,
    encoded_image,
    map_processes,
    same_settings,
    source_bytes,
)

INDEX = 'shards.parquet'
Member = tuple[str, str]
"""Name in the shards, and the file that it is."""
Places = dict[str, tuple[str, int, int]]
"""By member: its shard's file name, and the offset and length of its bytes."""
Track = Callable[[Iterator[Any]], Iterable[Any]]


def write_shards(
    members: Sequence[Member],
    out: Path,
    *,
    per_shard: int,
    workers: int,
    settings: dict[str, Any],
    track: Track = iter,
) -> Places:
    """Pack files in order; a shard that is there is kept, so an interrupted call goes on.

    Args:
        members: What to pack. A name that ends like an image is encoded as ``settings`` say, any
            other is copied.
        out: Folder of ``shard-000000.tar`` and so on.
        per_shard: Members of each.
        workers: Processes; 0 works in this one.
        settings: ``reduction``, ``quality`` and ``upright`` of
            :func:`~s3pt_mm.data.prepared_images.encoded_image`.
        track: Wraps the shards as they come, for a progress bar.

    Raises:
        DataError: A bad file, two members of one name, or ``out`` was begun with others.
    """
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(out, f'two files would be called {twice}', 'Rename one of them')
    digest = hashlib.blake2b('\0'.join(names).encode(errors='surrogateescape'), digest_size=8)
    same_settings(out, dict(settings, per_shard=per_shard, members=digest.hexdigest()))
    jobs = [
        (out / f'shard-{number:06d}.tar', members[start : start + per_shard])
        for number, start in enumerate(range(0, len(members), per_shard))
    ]
    one = partial(_write_shard, **settings)
    map_processes(one, jobs, workers=workers, track=track)
    return {name: place for path, _ in jobs for name, place in shard_members(path).items()}


def _write_shard(job: tuple[Path, Sequence[Member]], **settings: Any) -> None:
    path, members = job
    if path.exists():
        return
    with (
        replacing(path) as temporary,
        tarfile.open(temporary, 'w', format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, source in members:
            if name.lower().endswith(SUFFIXES):
                data = encoded_image(source, **settings)
            else:
                data = source_bytes(source)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def shard_members(path: Path) -> Places:
    """Where each file in a shard lies.

    Raises:
        DataError: The file is no whole tar file, or a compressed one, which has no offsets.
    """
    try:
        size = path.stat().st_size
        with tarfile.open(path, 'r:') as tar:
            found = {m.name: (path.name, m.offset_data, m.size) for m in tar if m.isfile()}
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            path, f'not a whole, uncompressed tar file ({error})', 'Remove it and run this again'
        ) from error
    if end > size or any(offset + length > size for _, offset, length in found.values()):
        raise DataError(
            path, f'the shard is truncated ({size} bytes)', 'Remove it and run this again'
        )
    return found


def index_of_images(folder: Path, places: Places) -> Path:
    """Write the info file of shards that hold images alone, in the order of a folder's images.

    Returns:
        The info file.

    Raises:
        DataError: There is no image in them.
    """
    samples = [
        {'token': name, 'images': {'image': _image(places[name]) | {'upright': True}}}
        for name in sorted(places)
        if name.lower().endswith(SUFFIXES)
    ]
    if not samples:
        raise DataError(folder, 'its shards hold no image', f'Endings that count: {SUFFIXES}')
    return _write_index(folder / INDEX, {}, samples)


def index_existing(folder: Path) -> Path:
    """Write the info file of tar files that others made, e.g. WebDataset's; returns it."""
    paths = sorted(folder.glob('*.tar'))
    if not paths:
        raise DataError(folder, 'there is no .tar file in it', 'Unpack .tar.gz: it has no offsets')
    places: Places = {}
    for path in paths:
        # Members of two shards may share a name.
        places |= {f'{path.stem}/{name}': place for name, place in shard_members(path).items()}
    return index_of_images(folder, places)


class ShardedInfos:
    """An info file whose images, sweeps and depth maps go into shards.

    Earlier LiDAR sweeps (``lidar_sweeps``) stay outside and are left out of the new file.

    Args:
        infos: The file, its calibration scaled as its images will be.
    """

    def __init__(self, infos: PreparedInfos) -> None:
        self.infos = infos
        self.members = list(
            dict((str(Path(to).relative_to(infos.out)), of) for of, to in infos.pairs).items()
        )
        others = {str(place): str(infos.root / place) for place in self._others()}
        self.members += sorted(others.items())

    def _others(self) -> Iterator[Path]:
        for _, place in self.infos.sweeps:
            yield place
        for image, _ in self.infos.images:
            if image.get('depth_map'):
                yield Path(image['depth_map'])

    def write(self, name: str, places: Places) -> Path:
        """Write the info file ``name`` beside the shards; returns it."""
        for image, member in self.infos.images:
            image |= _image(places[member])
            if image.get('depth_map'):
                image['depth_map'], *image['depth_span'] = places[image['depth_map']]
        for lidar, place in self.infos.sweeps:
            lidar['lidar_path'], *lidar['span'] = places[str(place)]
        samples = [copy.copy(sample) for sample in self.infos.data_list]
        for sample in samples:
            sample.pop('lidar_sweeps', None)
        return _write_index(self.infos.out / name, self.infos.metainfo, samples)


def _image(place: tuple[str, int, int]) -> dict[str, Any]:
    shard, offset, size = place
    return {'img_path': shard, 'img_span': [offset, size]}


def _write_index(path: Path, metainfo: dict[str, Any], samples: list[dict[str, Any]]) -> Path:
    """An info file whose paths start at its folder, with the shards' sizes for a check."""
    sizes = {shard.name: os.path.getsize(shard) for shard in sorted(path.parent.glob('*.tar'))}
    write_info_file(path, metainfo | {'converter': 's3pt-prepare', 'shards': sizes}, samples)
    return path
