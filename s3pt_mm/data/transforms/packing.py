"""The last transform: what the algorithm and the collate function receive."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.registry import TRANSFORMS

FIELDS = (
    *('token_xy', 'token_depth', 'token_has_depth', 'sample_seed'),
    *('view_colours', 'view_jpeg', 'view_cuts'),
)


@TRANSFORMS.register_module()
class PackViews(PackInputs):
    """Pack views and token geometry for the algorithm.

    Gives ``dict(inputs=[(3, h, w) uint8, ...], data_samples=DataSample)``.

    The DataSample has the tensors ``token_xy`` (2, N, 2) float32, ``token_depth`` (2, N) float32,
    ``token_has_depth`` (2, N) bool, ``sample_seed`` () int64, ``view_colours`` (V, 11) float32,
    ``view_jpeg`` (bytes,) uint8 and ``view_cuts`` (V, 6) float32, those that earlier transforms
    made (with ``view_jpeg`` there are no inputs yet), and the metainfo ``img_path`` and
    ``sample_idx`` (with the sampler's key, if it has one: ``DivergenceHook`` writes it down).
    """

    def __init__(self) -> None:
        super().__init__(
            input_key='img', algorithm_keys=FIELDS, meta_keys=('img_path', 'sample_idx')
        )

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        for key in FIELDS:
            if key in results:
                results[key] = torch.from_numpy(np.asarray(results[key]))
        # Far faster than PackInputs' own transpose; it passes tensors through.
        views = [] if 'view_jpeg' in results else results['img']
        results['img'] = [torch.from_numpy(np.stack(cv2.split(view))) for view in views]
        return super().transform(results)
