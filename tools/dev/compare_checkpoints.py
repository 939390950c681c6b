"""Bit-for-bit comparison of two checkpoints: what "resumed equals uninterrupted" means here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from s3pt_mm.common.reading import read_checkpoint

#: What may differ between two identical runs: clocks, names, folders, and mmengine's version with
#: the commit of the folder it was started in.
NOT_COMPARED = (
    'meta/time',
    'meta/cfg',
    'meta/experiment_name',
    'meta/mmengine_version',
    'message_hub/runtime_info/eta',
    'message_hub/runtime_info/cfg',
    'message_hub/runtime_info/experiment_name',
    'message_hub/runtime_info/mmengine_version',
    'message_hub/runtime_info/last_ckpt',
    'message_hub/runtime_info/best_ckpt',
    'message_hub/log_scalars/train/time',
    'message_hub/log_scalars/train/data_time',
    'message_hub/log_scalars/train/images_per_second',
    'message_hub/log_scalars/train/memory',
    'message_hub/log_scalars/val/time',
    'message_hub/log_scalars/val/data_time',
    'exact_resume/run',
    'exact_resume/recipe/settings',
)


def compare_checkpoints(one: str | Path, other: str | Path) -> list[str]:
    """Every entry in which two checkpoint files differ, except clocks, names and folders.

    Args:
        one: A checkpoint.
        other: Another.

    Returns:
        One line per difference, e.g. ``state_dict/teacher.head.weight: 3 of 64 numbers differ``;
        empty when the files hold the same bits.
    """
    loaded = [read_checkpoint(path) for path in (one, other)]
    return list(_differences('', *loaded))


def _differences(name: str, one: Any, other: Any) -> Iterator[str]:
    if name in NOT_COMPARED:
        return
    one, other = _plain(one), _plain(other)
    if type(one) is not type(other):
        yield f'{name}: {type(one).__name__} against {type(other).__name__}'
    elif isinstance(one, Mapping):
        for key in sorted({*one, *other}, key=str):
            inner = f'{name}/{key}'.lstrip('/')
            if inner in NOT_COMPARED:
                continue
            if key not in one or key not in other:
                yield f'{inner}: only in the {"first" if key in one else "second"}'
            else:
                yield from _differences(inner, one[key], other[key])
    elif isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            yield (
                f'{name}: {one.dtype} {tuple(one.shape)} against {other.dtype} {tuple(other.shape)}'
            )
        elif one.numel():
            # Bytes, not values: NaN equals itself and -0.0 is not 0.0.
            bits = [
                t.detach().contiguous().reshape(-1).view(torch.uint8).view(t.numel(), -1)
                for t in (one, other)
            ]
            wrong = int((bits[0] != bits[1]).any(dim=1).sum())
            if wrong:
                yield f'{name}: {wrong} of {one.numel()} numbers differ'
    elif isinstance(one, Sequence) and not isinstance(one, str | bytes):
        if len(one) != len(other):
            yield f'{name}: length {len(one)} against {len(other)}'
        for place, pair in enumerate(zip(one, other, strict=False)):
            yield from _differences(f'{name}/{place}', *pair)
    elif repr(one) != repr(other):  # repr: NaN equals itself
        yield f'{name}: {one!r} against {other!r}'


def _plain(value: Any) -> Any:
    """Log histories and NumPy values as tensors and numbers."""
    if isinstance(value, HistoryBuffer):
        history, counts = value.data
        return {'history': _plain(history), 'counts': _plain(counts)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value) if value.dtype != object else value.tolist()
    return value
