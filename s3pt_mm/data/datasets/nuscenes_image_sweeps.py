"""Camera images between nuScenes' key frames, attached to the infos of their samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.nuscenes_images import CAMERAS
from s3pt_mm.data.datasets.nuscenes_samples import LIDAR, NUM_PTS_FEATS

if TYPE_CHECKING:
    from s3pt_mm.data.datasets.nuscenes_samples import SampleBuilder


def add_image_sweeps(
    builder: SampleBuilder, infos: dict[str, dict[str, Any]], on_error: str = 'raise'
) -> list[str]:
    """Attach the images between key frames to the infos of their samples.

    Args:
        builder: Has the tables.
        infos: by sample token, one scene's, at least one; with 'skip', samples with a bad
            sweep are taken out.
        on_error: 'raise' or 'skip'.

    Returns:
        Messages of the samples that were taken out.

    Raises:
        DataError: see :meth:`SampleBuilder.build`; of the chain of a sensor's records in any case.
    """
    data = [builder.nusc.get('sample', token)['data'] for token in infos]
    lidars = _chain(builder, data[0][LIDAR])
    times = np.array([record['timestamp'] for record in lidars])
    for info in infos.values():
        info['image_sweeps'] = []
    bad: dict[str, str] = {}
    for cam in CAMERAS:
        start = next((channels[cam] for channels in data if cam in channels), None)
        for record in _chain(builder, start) if start else ():
            sample = record['sample_token']
            if record['is_key_frame'] or sample not in infos or sample in bad:
                continue
            nearest = lidars[int(np.abs(times - record['timestamp']).argmin())]
            try:
                infos[sample]['image_sweeps'].append(_image_sweep(builder, cam, record, nearest))
            except DataError as error:
                if on_error == 'raise':
                    raise
                bad[sample] = str(error)
    for sample in bad:
        del infos[sample]
    return list(bad.values())


def _image_sweep(
    builder: SampleBuilder, cam: str, record: dict[str, Any], nearest: dict[str, Any]
) -> dict[str, Any]:
    try:
        return {
            'timestamp': record['timestamp'] / 1e6,
            'ego2global': builder.pose(record).tolist(),
            'images': {cam: builder.image(record, nearest, key_frame=False)},
            'lidar_points': {
                'num_pts_feats': NUM_PTS_FEATS,
                'lidar_path': builder.file(nearest).as_posix(),
                'timestamp': nearest['timestamp'] / 1e6,
            },
        }
    except KeyError as error:
        raise builder.dangling(f'image sweep {record["token"]}', error) from error


def _chain(builder: SampleBuilder, token: str) -> list[dict[str, Any]]:
    """All records of a sensor in a scene, in time order, from any one of them."""
    try:
        record = builder.nusc.get('sample_data', token)
        first = [record, *_walk(builder, record, 'prev')][-1]
        return [first, *_walk(builder, first, 'next')]
    except KeyError as error:
        raise builder.dangling(f'the chain of sample_data {token}', error) from error


def _walk(builder: SampleBuilder, record: dict[str, Any], way: str) -> Iterator[dict[str, Any]]:
    """Records after one, which ``prev`` or ``next`` name; a ring is a KeyError."""
    seen = {record['token']}
    while record[way]:
        if record[way] in seen:
            raise KeyError(f'{record[way]} twice')
        seen.add(record[way])
        record = builder.nusc.get('sample_data', record[way])
        yield record
