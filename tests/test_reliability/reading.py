"""A step of a pipeline that writes down which image this rank reads, in which epoch."""

from __future__ import annotations

import os
from pathlib import Path

from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class WriteDown(BaseTransform):
    """A line an image in a file a rank, in the folder that ``READ`` names."""

    def transform(self, results: dict) -> dict:
        """Epoch and token, which the folder and its shards share."""
        path = Path(os.environ['READ']) / os.environ['RANK']
        with path.open('a') as file:
            file.write(f'{results["sample_idx"].epoch} {results["token"]}\n')
        return results
