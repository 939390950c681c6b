"""Samples of any format -> an info file, and files of their own for what lies inside containers."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

from s3pt_mm.common.errors import DataError, fields_of
from s3pt_mm.common.files import inside, write_bytes, write_json
from s3pt_mm.data.datasets.info_file import write_info_file
from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep
from s3pt_mm.data.geometry import check_lens, fold_projection

EXTRACTED = 'extracted.json'  # in out_dir: what the files of a drive were extracted from
_ENDS = 1 << 20  # bytes at a file's start and end that tell it from others
_AGAIN = 'Download the log again'
CONVERTER = 's3pt-data'  # in metainfo: paths start at the data set's root


class InfoWriter:
    """Turns samples into entries of an info file whose ``data_root`` is ``out_dir``.

    Files that it extracts appear whole or not at all, and are taken as they are by the next run of
    the same command.

    Args:
        out_dir: Folder of the info file; ``images/`` and ``lidar/`` below it hold what had to be
            extracted.
    """

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self._sizes: dict[tuple[str, str], tuple[int, int]] = {}
        self._known: set[str] = set()

    def entry(self, sample: Sample) -> dict[str, Any]:
        """The info of one sample.

        Raises:
            DataError: A file is missing, or a calibration cannot be used.
        """
        self._compare_container(sample)
        sweep = self._sweep(sample) if sample.sweep else None
        images = {
            name: self._image(sample, name, image, sweep is not None)
            for name, image in sample.images.items()
        }
        info: dict[str, Any] = {'token': sample.token, 'timestamp': sample.timestamp}
        if sample.ego2global is not None:
            info['ego2global'] = np.asarray(sample.ego2global).tolist()
        info['images'] = images
        if sweep:
            info['lidar_points'] = sweep
        return info

    def _compare_container(self, sample: Sample) -> None:
        """Refuse what another file of this name left: two cameras both write ``clip.mp4``."""
        if sample.container is None or sample.sequence in self._known:
            return
        record, told = self.out_dir / EXTRACTED, {}
        if record.is_file():
            try:
                told = dict(json.loads(record.read_text(encoding='utf-8')))
            except (ValueError, TypeError) as error:
                raise DataError(record, f'is damaged ({error})', 'Remove it') from error
        found = _content(sample.container)
        if told.setdefault(sample.sequence, found) != found:
            raise DataError(
                sample.container,
                f'{self.out_dir} holds files of another {sample.sequence!r}, which has this name',
                'Use another --out-dir, or rename one of them',
            )
        write_json(record, told)
        self._known.add(sample.sequence)

    def _image(
        self, sample: Sample, name: str, image: CameraImage, with_lidar: bool
    ) -> dict[str, Any]:
        path = image.path or self._extract_image(sample, name, image)
        if not path.is_file():
            raise DataError(path, 'no such image', 'Check the download, or leave its camera out')
        width, height = image.size or self._size(sample.sequence, name, path)
        entry: dict[str, Any] = {
            'img_path': self._relative(path), 'width': width, 'height': height
        }  # fmt: skip
        if image.cam2img is None:
            return entry
        try:
            intrinsics, shift = fold_projection(image.cam2img)
            if image.distortion:
                check_lens(image.distortion)
                entry['distortion'] = dict(image.distortion)
        except ValueError as error:
            raise DataError(path, f'camera {name!r}: {error}', 'Correct the calibration') from error
        entry['cam2img'] = intrinsics.tolist()
        if with_lidar and image.lidar2cam is not None:
            entry['lidar2cam'] = (shift @ image.lidar2cam).tolist()
        return entry

    def _sweep(self, sample: Sample) -> dict[str, Any]:
        sweep: Sweep = sample.sweep
        if sweep.points is None:
            if sweep.path is None or not sweep.path.is_file():
                raise DataError(sweep.path, 'no such sweep', 'Check the download')
            return {
                'lidar_path': self._relative(sweep.path), 'num_pts_feats': sweep.num_features
            }  # fmt: skip
        path = inside(self.out_dir / 'lidar', f'{sample.token}.bin', sample.sequence)
        if not path.is_file():
            points = np.asarray(sweep.points(), dtype=np.float32)[:, :4]
            if points.shape[1] == 3:
                points = np.pad(points, ((0, 0), (0, 1)))
            write_bytes(path, np.ascontiguousarray(points).tobytes())
        return {'lidar_path': self._relative(path), 'num_pts_feats': 4}

    def _extract_image(self, sample: Sample, name: str, image: CameraImage) -> Path:
        folder = inside(self.out_dir / 'images', name, sample.sequence)
        inside(folder, sample.token, sample.sequence)
        found = next(folder.glob(f'{glob.escape(sample.token)}.*'), None)
        if found is None:
            data = image.encoded()
            suffix = '.png' if data.startswith(b'\x89PNG') else '.jpg'
            found = folder / f'{sample.token}{suffix}'
            write_bytes(found, data, tidy=False)
        return found

    def _size(self, sequence: str, name: str, path: Path) -> tuple[int, int]:
        """Size of one image of a camera in a drive: one header read for all of them."""
        key = (sequence, name)
        if key not in self._sizes:
            try:
                with Image.open(path) as image:
                    self._sizes[key] = image.size
            except Exception as error:
                raise DataError(path, f'not a readable image ({error})', 'Copy it again') from error
        return self._sizes[key]

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path.absolute(), self.out_dir.absolute())


def _content(container: Path) -> str:
    """A hash of the ends of a file, or of all files in a folder; wherever they lie."""
    digest = hashlib.blake2b(digest_size=16)
    below = sorted(path for path in container.rglob('*') if path.is_file())
    for path in below or [container]:
        size = path.stat().st_size
        with path.open('rb') as file:
            digest.update(f'{size}'.encode() + file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()


def split_by_sequence(
    samples: Iterable[Sample], val_sequences: Iterable[str], val_share: float
) -> Iterator[tuple[str, Sample]]:
    """('train' or 'val', sample): whole sequences by name, else the last share of each in time.

    Neighbouring instants are alike, so samples are never dealt at random.
    """
    wanted = set(val_sequences)
    if wanted or not val_share:
        for sample in samples:
            yield ('val' if sample.sequence in wanted else 'train'), sample
        return
    drives: dict[str, list[Sample]] = {}
    for sample in samples:
        drives.setdefault(sample.sequence, []).append(sample)
    for drive in drives.values():
        first_val = len(drive) - round(len(drive) * val_share)
        for index, sample in enumerate(drive):
            yield ('val' if index >= first_val else 'train'), sample


def write_infos(
    log: LogFormat,
    name: str,
    out_dir: Path,
    *,
    val_sequences: Iterable[str] = (),
    val_share: float = 0.0,
    on_error: str = 'raise',
    max_failed_share: float = 0.01,
) -> dict[str, Path]:
    """Write ``<name>_infos_train`` and, where there is one, ``_val``, with progress.

    Args:
        log: The opened log.
        name: Stem of the files.
        out_dir: Folder of the info files, and the data set's ``data_root``.
        val_sequences: Drives that go to val.
        val_share: Without ``val_sequences``: the last share of each drive that goes to val.
        on_error: 'skip' leaves out samples with a :class:`DataError` and names them.
        max_failed_share: With 'skip', more than this share of samples is an error all the same.

    Returns:
        Path of the info file of each split that has samples.

    Raises:
        DataError: A file or calibration cannot be used, or too many cannot.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    writer = InfoWriter(out_dir)
    with fields_of(log.root, _AGAIN):
        chosen = list(split_by_sequence(log.samples(), val_sequences, val_share))
    entries: dict[str, list[dict[str, Any]]] = {'train': [], 'val': []}
    failed: list[DataError] = []
    for split, sample in track(chosen, description=f'reading {name}'):
        try:
            with fields_of(log.root, f'{_AGAIN}, or leave {sample.token} out with --on-error skip'):
                entry = writer.entry(sample)
        except DataError as error:
            if on_error == 'raise':
                raise
            failed.append(error)
            print(f'left out {sample.token}: {error}')
            continue
        entries[split].append({'sample_idx': len(entries[split]), **entry})
    if len(failed) == len(chosen) or len(failed) > max_failed_share * len(chosen):
        first = f'; the first: {failed[0]}' if failed else ''
        raise DataError(
            log.root,
            f'{len(failed)} of {len(chosen)} samples cannot be used{first}',
            'Mend them, or allow more with --max-failed-share',
        )
    written = {}
    for split, infos in entries.items():
        if infos:
            written[split] = out_dir / f'{name}_infos_{split}.parquet'
            write_info_file(
                written[split],
                dict(info_version='1.1', dataset=name, split=split, converter=CONVERTER),
                infos,
            )
    return written
