"""What every pre-training dataset shares: pipeline, storage without copies, error policy."""

from __future__ import annotations

import gc
import logging
import pickle
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS

from s3pt_mm.common.errors import DataError


class PretrainDataset(BaseDataset):
    """One item an image; subclasses fill ``load_data_list``.

    Items are kept as one block of bytes (mmengine's ``serialize_data``), which forked workers share
    with the main process.

    Args:
        pipeline: transforms, built in mmpretrain's registry.
        on_error: 'raise' stops at the first :class:`DataError`; 'skip' logs it, puts another image
            in its place (drawn from NumPy's generator, so it follows from the sample's own seed)
            and goes on. Choice of this package.
        max_failed_share: with 'skip', stop when more than this share of the dataset's images has
            failed. All workers of this process count together.
        **kwargs: see mmengine's ``BaseDataset``.

    Attributes:
        by_camera: positions of each camera's items.
    """

    by_camera: dict[str, array]

    def __init__(
        self,
        *,
        pipeline: Sequence[dict | Callable] = (),
        on_error: str = 'raise',
        max_failed_share: float = 0.01,
        **kwargs: Any,
    ) -> None:
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        if not 0.0 <= max_failed_share <= 1.0:
            raise ValueError(f'max_failed_share is a share between 0 and 1, got {max_failed_share}')
        self.on_error = on_error
        self.max_failed_share = max_failed_share
        self._failed = torch.zeros(0, dtype=torch.bool)
        # As mmpretrain does: its registry is searched even where no default scope is set.
        super().__init__(
            pipeline=[
                TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline
            ],
            **kwargs,
        )

    def full_init(self) -> None:
        """Load the list and check it."""
        if self._fully_initialized:
            return
        collecting = gc.isenabled()
        gc.disable()  # else each pass of it visits tens of millions of objects of a large file
        try:
            super().full_init()
        finally:
            if collecting:
                gc.enable()
        if self.on_error == 'skip':
            # One flag an image in shared memory: workers need no lock, and an image that fails
            # every epoch counts once.
            self._failed = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """As mmengine's, one item at a time: each is let go once its bytes are written.

        mmengine keeps an array an item beside all items and twice has the collector visit them.

        Returns:
            All items' bytes, (total,) uint8, and where each item ends, (number of items,) int64.
        """
        data, ends = bytearray(), np.empty(len(self.data_list), dtype=np.int64)
        self.by_camera = {}
        for index, item in enumerate(self.data_list):
            self.data_list[index] = None
            self.by_camera.setdefault(item.get('cam', ''), array('L')).append(index)
            data += pickle.dumps(item, protocol=4)
            ends[index] = len(data)
        self.data_list.clear()
        return np.frombuffer(data, dtype=np.uint8), ends

    def filter_data(self) -> list[dict]:
        """Apply the options that choose images."""
        if not self.data_list:
            raise DataError(
                self.ann_file or self.data_root or '(dataset)',
                'there are no images in it',
                'Check ann_file, data_root and the cameras asked for',
            )
        return self.data_list

    @property
    def num_failed(self) -> int:
        """Images that failed so far, in all workers of this process."""
        return int(self._failed.sum())

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline; ``None`` if the image failed and may be skipped.

        mmengine then draws another image.
        """
        try:
            return super().prepare_data(idx)
        except DataError as error:
            if self.on_error == 'raise':
                raise
            self._count_failure(int(idx), error)
            return None

    def _count_failure(self, idx: int, error: DataError) -> None:
        self._failed[idx] = True
        failed, allowed = self.num_failed, self.max_failed_share * len(self)
        print_log(
            f'skipped an image ({failed} of {len(self)} so far): {error}',
            'current',
            logging.WARNING,
        )
        if failed > allowed:
            raise RuntimeError(
                f'{failed} of {len(self)} images failed, more than max_failed_share='
                f'{self.max_failed_share} allows; the last: {error} '
                'Run s3pt-check for the full list.'
            ) from error


def as_matrix(value: Any, shape: tuple[int, int], *, path: str, name: str) -> np.ndarray:
    """A calibration matrix of an info file as finite float64 of the given shape.

    Raises:
        DataError: naming the image and the field.
    """
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.ndim == 2:  # cam2img comes as (3, 3), (3, 4) or (4, 4)
        matrix = matrix[: shape[0], : shape[1]]
    if matrix.shape != shape or not np.isfinite(matrix).all():
        raise DataError(
            path,
            f'{name} must be {shape[0]} x {shape[1]} finite numbers, got {matrix.tolist()}',
            'Correct the calibration in the info file',
        )
    return matrix
