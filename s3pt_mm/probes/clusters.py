"""Quality of joint-view clusters of a backbone's tokens, without training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s3pt_mm.data.geometry.completion import complete_points
from s3pt_mm.data.transforms.tokens import TokenGeometry
from s3pt_mm.method.clustering import ClusteringConfig, cluster_joint_views, draw_first_tokens
from s3pt_mm.probes import cluster_quality as quality
from s3pt_mm.probes.token_labels import LabelledPoints, token_segments

SIZES = {'small': (2, 6), 'medium': (7, 20), 'large': (21, 10**9)}
"""Tokens of an object, both views together."""
CRIBO = dict(num_clusters=32, sinkhorn_iterations=5)
S3PT = dict(num_clusters=128, sinkhorn_iterations=1, depth_weight=4.0, depth_completion='classical')


@dataclass
class Views:
    """Two views of one image with all that is known of their tokens.

    Attributes:
        pixels: two (S, S, 3) uint8 RGB.
        points: labelled points of the image.
        boxes: (2, 4) source pixels.
        flips: (2,) bool.
        uvd: (M, 3) returns: source pixels, metres.
        size: (width, height) of the image.
    """

    pixels: Sequence[np.ndarray]
    points: LabelledPoints
    boxes: np.ndarray
    flips: np.ndarray
    uvd: np.ndarray
    size: tuple[int, int]

    def geometry(self, completion: str, patch_size: int) -> dict[str, np.ndarray]:
        """Positions and depths of the tokens, as pre-training has them."""
        uvd = complete_points(self.uvd, self.size, method=completion)
        given = dict(img=self.pixels, view_boxes=self.boxes, view_flips=self.flips, lidar_uvd=uvd)
        return TokenGeometry(patch_size=patch_size).transform(given)


Backbone = Callable[[Tensor], Tensor]
"""(n, 3, S, S) uint8-valued RGB -> (n, N, d) tokens."""


def colour_and_gradients(patch_size: int) -> Backbone:
    """No network: mean and deviation of colour and of gradients in each patch, standardised."""

    def encode(images: Tensor) -> Tensor:
        grey = images.mean(1, keepdim=True)
        steep = [F.pad(grey.diff(dim=d).abs(), (0, d == 3, 0, d == 2)) for d in (2, 3)]
        channels = torch.cat([images, *steep], 1)
        mean = F.avg_pool2d(channels, patch_size)
        spread = (F.avg_pool2d(channels**2, patch_size) - mean**2).clamp_min(0).sqrt()
        tokens = torch.cat([mean, spread], 1).flatten(2).transpose(1, 2)
        flat = tokens.flatten(0, 1)
        return (tokens - flat.mean(0)) / flat.std(0).clamp_min(1e-6)

    return encode


@torch.no_grad()
def evaluate(
    images: Sequence[Views],
    encode: Backbone,
    settings: Mapping[str, dict[str, Any]],
    *,
    seed: int,
    patch_size: int = 16,
    batch_size: int = 16,
) -> Iterator[dict[str, Any]]:
    """Cluster with every setting; one row for each image and setting.

    Args:
        images: What to cluster.
        encode: The backbone; its tokens are computed once for all settings.
        settings: By name, fields of ``ClusteringConfig`` and ``depth_completion``.
        seed: Of the drawn first centroids.
        patch_size: Pixels.
        batch_size: Images that share the cost's range, as on a rank.

    Yields:
        ``setting``, ``image``, the figures, ``recalls`` (a list of ``ObjectRecall``) and
        ``clusters``, (2, N).
    """
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        pixels = np.stack([view for item in batch for view in item.pixels])
        tokens = encode(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        tokens = tokens.unflatten(0, (len(batch), 2)).flatten(1, 2)
        side = batch[0].pixels[0].shape[0] // patch_size
        seeds = torch.arange(start, start + len(batch)) + 100_003 * seed
        found = [token_segments(i.points, i.boxes, i.flips, side) for i in batch]
        geometries = {'none': [item.geometry('none', patch_size) for item in batch]}
        for name, setting in settings.items():
            options = dict(setting)
            completion = options.pop('depth_completion', 'none')
            config = ClusteringConfig(**options)
            if completion not in geometries:
                geometries[completion] = [item.geometry(completion, patch_size) for item in batch]
            given = geometries[completion]
            xy, depth, has = (
                torch.from_numpy(np.stack([g[key] for g in given])).flatten(1, 2)
                for key in ('token_xy', 'token_depth', 'token_has_depth')
            )
            first = draw_first_tokens(
                seeds, len(batch), tokens.shape[1], config.num_clusters, tokens.device
            )
            assignment = cluster_joint_views(tokens, xy, first, config, depth, has)
            for index, item in enumerate(batch):
                clusters = assignment.labels[index].view(2, -1).numpy()
                row = _figures(clusters, found[index], item, geometries['none'][index], side)
                yield dict(setting=name, image=start + index, clusters=clusters, **row)


def _figures(
    clusters: np.ndarray, segments: np.ndarray, item: Views, geometry: dict, side: int
) -> dict[str, Any]:
    points, known = item.points, segments != quality.UNLABELLED
    labels = np.where(known, points.classes[np.maximum(segments, 0)], quality.UNLABELLED)
    both = np.intersect1d(*clusters)
    counts = quality.contingency(clusters.ravel(), segments.ravel())
    row: dict[str, Any] = dict(
        clusters_found=len(np.unique(clusters)),
        valid=len(both),
        valid_tokens=float(np.isin(clusters, both).mean()),
        depth_explained=quality.variance_explained(
            clusters.ravel(), geometry['token_depth'].ravel(), geometry['token_has_depth'].ravel()
        ),
        recalls=quality.object_recalls(clusters, segments, labels, points.objects),
    )
    if counts.size:
        grids = (x.reshape(2, side, side) for x in (clusters, segments))
        row |= dict(
            purity=quality.purity(counts),
            ari=quality.adjusted_rand_index(counts),
            boundary_f1=quality.boundary_f1(*grids),
        )
    return row


def recall_by(recalls: Sequence[quality.ObjectRecall]) -> dict[str, float]:
    """Mean recall of the objects of each size; NaN where there is none."""
    result = {}
    for name, (low, high) in SIZES.items():
        chosen = [r.recall for r in recalls if low <= r.tokens <= high]
        result[name] = float(np.mean(chosen)) if chosen else float('nan')
    return result
