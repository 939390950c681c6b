"""Positions and depths of the tokens of the two global views."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from s3pt_mm.data.geometry import bin_depth, token_positions

NUM_GLOBAL = 2


@TRANSFORMS.register_module()
class TokenGeometry(BaseTransform):
    """Token positions from crop box and flip, token depths from projected points.

    Adds ``token_xy`` (2, N, 2) float32, source pixels; ``token_depth`` (2, N) float32, metres, 0
    where there is none; and ``token_has_depth`` (2, N) bool. Without LiDAR no token has depth.

    Args:
        patch_size: side of a token in pixels of the view; must divide the view's.
        depth: 'mean' averages metres over a token; 'log' averages log metres, and ``token_depth``
            is then in log metres (a difference of it is a ratio of distances). Choice of this
            package.
    """

    def __init__(self, *, patch_size: int = 16, depth: str = 'mean') -> None:
        if depth not in ('mean', 'log'):
            raise ValueError(f"depth must be 'mean' or 'log', got {depth!r}")
        self.patch_size = patch_size
        self.depth = depth

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """See the class."""
        points = results.get('lidar_uvd')
        if points is None:
            points = np.zeros((0, 3), dtype=np.float32)
        xys, depths, masks = [], [], []
        for view, box, flip in zip(
            results['img'][:NUM_GLOBAL], results['view_boxes'], results['view_flips'], strict=False
        ):
            grid = {'size': view.shape[0], 'patch_size': self.patch_size}
            xys.append(token_positions(box, flip, **grid))
            depth, mask = bin_depth(points, box, flip, log=self.depth == 'log', **grid)
            depths.append(depth)
            masks.append(mask)
        results.update(
            token_xy=np.stack(xys), token_depth=np.stack(depths), token_has_depth=np.stack(masks)
        )
        return results
