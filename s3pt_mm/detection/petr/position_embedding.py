"""PETR's position embedding: where in 3D a token of an image looks (arXiv 2203.05625, section 3.2).

Each token's ray is cut at D depths; the D points, in LiDAR coordinates and scaled to a box around
the car, are the input of a small MLP. A camera maps a point p to pixels by
lidar2img (p, 1) = (u d, v d, d, 1), hence with [A | t] the first three rows of the inverse

    p = d (A_0 u + A_1 v + A_2) + t:

a ray and an offset for each token, one multiplication and one addition for each of its depths.
The points depend on the calibration alone, so they are kept for calibrations seen before.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmdet.models.layers import inverse_sigmoid
from torch import Tensor


def sine_embedding(
    values: Tensor, num_feats: int, *, interleave: bool, temperature: float = 10000.0
) -> Tensor:
    """Sines and cosines of numbers (DETR, arXiv 2005.12872).

    Args:
        values: (...), radians.
        num_feats: Features of each number, even.
        interleave: Sine and cosine of one frequency lie side by side, as PETR's code has it for the
            reference points; else all sines precede all cosines, as it has it for the views.
        temperature: Ratio of the longest to the shortest wavelength.

    Returns:
        (..., num_feats): sin, cos of values / temperature^(2i / num_feats) for i = 0, 1, ...
    """
    exponent = torch.arange(0, num_feats, 2, device=values.device, dtype=torch.float32) / num_feats
    angle = values[..., None] / temperature**exponent
    return torch.stack((angle.sin(), angle.cos()), -1 if interleave else -2).flatten(-2)


def reference_embedding(points: Tensor, num_feats: int) -> Tensor:
    """Embedding of the queries' reference points.

    Args:
        points: (Q, 3), x, y, z as shares of the detection range.
        num_feats: Features of each coordinate.

    Returns:
        (Q, 3 num_feats), in PETR's order y, x, z.
    """
    x, y, z = points.unbind(-1)  # an index list would be copied to the device, and awaited
    turned = torch.stack((y, x, z), -1) * (2 * math.pi)
    return sine_embedding(turned, num_feats, interleave=True).flatten(1)


def view_positions(counts: Tensor, dim: int) -> Tensor:
    """Running number of the valid tokens along a dimension, in radians of one turn.

    Args:
        counts: 1 where a token is valid, else 0.
        dim: The dimension.
    """
    running = counts.cumsum(dim)
    return running / (running.narrow(dim, -1, 1) + 1e-6) * (2 * math.pi)


def depth_bins(num: int, start: float, end: float) -> Tensor:
    """Depths whose spacing grows linearly (CaDDN, arXiv 2103.01100; PETR's ``LID``).

    Args:
        num: How many.
        start: First depth, metres.
        end: The depth that bin ``num`` would have, metres.

    Returns:
        (num,) float32.
    """
    index = torch.arange(num, dtype=torch.float32)
    return start + (end - start) / (num * (num + 1)) * index * (index + 1)


def stack_lidar2img(metas: Sequence[Mapping], num_views: int) -> np.ndarray:
    """The projection matrices of a batch, checked.

    Args:
        metas: Of each sample, ``lidar2img``: V matrices (4, 4).
        num_views: V, as the images have it.

    Returns:
        (B, V, 4, 4) float64.

    Raises:
        KeyError: A sample has no ``lidar2img``.
        ValueError: The number of matrices is not V, or one is not finite or not invertible.
    """
    stacked = []
    for number, meta in enumerate(metas):
        sample = meta.get('token', meta.get('sample_idx', number))
        if 'lidar2img' not in meta:
            raise KeyError(
                f'sample {sample} has no `lidar2img`; load it with LoadSurroundImages and list '
                "'lidar2img' in meta_keys of Pack3DDetInputs"
            )
        matrices = np.stack([np.asarray(m, np.float64) for m in meta['lidar2img']])
        if matrices.shape != (num_views, 4, 4):
            raise ValueError(
                f'sample {sample}: lidar2img has shape {matrices.shape} for {num_views} images, '
                f'expected ({num_views}, 4, 4); a camera is missing or listed twice'
            )
        for view, matrix in enumerate(matrices):
            if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
                raise ValueError(
                    f'sample {sample}, view {view}: lidar2img is not finite or not invertible: '
                    f'{matrix.tolist()}; correct the calibration in the info file'
                )
        stacked.append(matrices)
    return np.stack(stacked)


def frustum_points(
    lidar2img: np.ndarray,
    image_size: tuple[int, int],
    feature_size: tuple[int, int],
    depths: Tensor,
    position_range: Sequence[float],
) -> Tensor:
    """Points along each token's ray, as shares of a box.

    A token stands for the corner of its patch with the smallest x and y, as in PETR's code (its
    checkpoint expects that).

    Args:
        lidar2img: (V, 4, 4).
        image_size: (height, width) of the padded image, pixels.
        feature_size: (h, w) of the feature map.
        depths: (D,) metres.
        position_range: (x0, y0, z0, x1, y1, z1) of the box, metres.

    Returns:
        (V, h, w, D, 3) float32 on the device of ``depths``; inside the box within [0, 1].
    """
    low, high = np.asarray(position_range, np.float64).reshape(2, 3)
    inverse = np.linalg.inv(lidar2img)[:, :3]  # (V, 3, 4)
    inverse[..., 3] -= low
    inverse /= (high - low)[:, None]
    columns = torch.from_numpy(np.ascontiguousarray(np.moveaxis(inverse, 2, 0), np.float32))
    a0, a1, a2, offset = columns.to(depths.device, non_blocking=True)  # each (V, 3)
    (height, width), (h, w) = image_size, feature_size
    u = torch.arange(w, device=depths.device, dtype=torch.float32) * (width / w)
    v = torch.arange(h, device=depths.device, dtype=torch.float32) * (height / h)
    ray = (
        a0[:, None, None] * u[:, None] + a1[:, None, None] * v[:, None, None] + a2[:, None, None]
    )  # (V, h, w, 3)
    return torch.addcmul(offset[:, None, None, None], ray[..., None, :], depths[:, None])


class FrustumCache:
    """Inputs of the position encoder by calibration; the least recently used one goes first.

    nuScenes' calibration contains both ego poses and augmentation changes it, so in training hits
    are rare and a miss costs milliseconds; repeated evaluation and own rigs without ego motion hit.

    Args:
        depths: (D,) metres.
        position_range: (x0, y0, z0, x1, y1, z1), metres.
        max_entries: Samples kept; six views of 20 x 50 tokens and 64 depths take 4.6 MB each.
    """

    def __init__(
        self, *, depths: Tensor, position_range: Sequence[float], max_entries: int = 16
    ) -> None:
        if max_entries < 0:
            raise ValueError(f'max_entries must not be negative, got {max_entries}')
        self.depths = depths
        self.position_range = tuple(position_range)
        self.max_entries = max_entries
        self._entries: OrderedDict[tuple, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __deepcopy__(self, memo: dict) -> FrustumCache:
        """A copy of the model (EMA, DDP on spawn) starts empty."""
        return FrustumCache(
            depths=self.depths, position_range=self.position_range, max_entries=self.max_entries
        )

    @torch.no_grad()
    def lookup(
        self,
        lidar2img: np.ndarray,
        image_size: tuple[int, int],
        feature_size: tuple[int, int],
        device: torch.device,
    ) -> Tensor:
        """The encoder's input for one sample.

        Args:
            lidar2img: (V, 4, 4) float64.
            image_size: (height, width), pixels.
            feature_size: (h, w).
            device: Where the result lies.

        Returns:
            (V h w, 3 D), the logits of :func:`frustum_points` clamped to the box.
        """
        key = (lidar2img.tobytes(), tuple(image_size), tuple(feature_size), device)
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        self.depths = self.depths.to(device)
        points = frustum_points(
            lidar2img, image_size, feature_size, self.depths, self.position_range
        )
        entry = inverse_sigmoid(points).view(-1, 3 * len(self.depths))
        self._entries[key] = entry
        while len(self._entries) > self.max_entries:
            self._entries.popitem(last=False)
        return entry
