"""Whether two processes, or two moments, hold the same data set."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine import dist

from s3pt_mm.common.checksums import sha256
from s3pt_mm.common.errors import ConfigError


def fingerprint(dataset: Any) -> str:
    """A hash of a data set's size and list, 16 hexadecimal digits.

    The list is the annotation file, else the items in memory (mmengine's data sets, ours, wrappers
    of them). The folder in which they lie (``data_root``) may differ. Of others only type and size
    are known.
    """
    digest = hashlib.blake2b(digest_size=8)
    _feed(digest, dataset)
    return digest.hexdigest()


def _feed(digest: Any, dataset: Any) -> None:
    digest.update(f'{type(dataset).__name__} {len(dataset)}'.encode())
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    for one in inner if isinstance(inner, list | tuple) else [inner] if inner is not None else []:
        _feed(digest, one)
    listed = getattr(dataset, 'ann_file', None)
    if listed and os.path.isfile(listed):
        digest.update(sha256(listed).encode())
        return
    root = os.fspath(getattr(dataset, 'data_root', None) or '')
    for item in _items(dataset):
        digest.update(repr(item).replace(root, '').encode(errors='backslashreplace'))


def _items(dataset: Any) -> Iterator[Any]:
    """The list as mmengine keeps it: as it is, or each item's bytes one after another."""
    content = getattr(dataset, 'data_bytes', None)
    if isinstance(content, np.ndarray) and content.size:
        whole, start = content.data, 0
        for end in dataset.data_address:
            yield pickle.loads(whole[start:end])  # bytes that this process itself made
            start = end
    else:
        yield from getattr(dataset, 'data_list', ())


def require_same_data(dataset: Any) -> None:
    """Stop all ranks of a run whose data sets differ, before the first batch.

    Raises:
        ConfigError: On every rank; names sizes and hashes by rank.
    """
    if dist.get_world_size() == 1:
        return
    ranks = dist.all_gather_object((len(dataset), fingerprint(dataset)))
    if len(set(ranks)) > 1:
        listed = ', '.join(
            f'rank {rank}: {size} images (list {content})'
            for rank, (size, content) in enumerate(ranks)
        )
        raise ConfigError(
            f'The ranks hold different data sets: {listed}. Make the info file and the folders '
            'the same on all hosts.'
        )
