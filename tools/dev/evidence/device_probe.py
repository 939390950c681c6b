"""The place-free probes on a device, from crops that are made once and used by every network.

Crops, removal of place, controls, heads' settings and scores are those of :mod:`s3pt_mm.probes`;
what differs is that labels are counted at the crops' size and not at the files', and that the
search for neighbours is a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3pt_mm.data.class_sets import IGNORE
from s3pt_mm.probes.confusion import scores
from s3pt_mm.probes.controls import control_maps, feature_map_of
from s3pt_mm.probes.linear_probe import fit_linear
from s3pt_mm.probes.patches import FeatureMap, RandomCrops, subtract_place
from tools.dev.evidence.packed import Frames, resize_labels

_AT_A_TIME = 1024  # queries whose similarities exist at a time
_FORWARD = 64  # crops a forward


@dataclass
class Crops:
    """Crops of one split: (I, 3, s, s) float16 normalised, and (I, s, s) uint8 classes."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, frames: Frames, split: str, size: int, per_image: int) -> Crops:
        """The package's random crops of seed 0."""
        crops = RandomCrops(frames.split(split, size), per_image=per_image, seed=0)

        def one(index: int) -> tuple[Tensor, Tensor]:
            item = crops[index]
            labels = resize_labels(item.label_map, (size, size))
            return item.image.half(), torch.from_numpy(labels)

        with ThreadPoolExecutor(8) as pool:
            images, labels = zip(*pool.map(one, range(len(crops))), strict=True)
        return cls(torch.stack(images), torch.stack(labels))


class Probe:
    """One data set's probes.

    Args:
        frames: Data set.
        size: Pixels of a crop.
        crops: Of the training images in all; each has as many as come nearest to it.
    """

    def __init__(self, frames: Frames, size: int, crops: int) -> None:
        per_image = max(1, min(8, round(crops / len(frames.train))))
        self.classes = frames.classes
        self.train, self.val = (Crops.of(frames, s, size, per_image) for s in ('train', 'val'))

    def to(self, device: str) -> Probe:
        """Move the crops; returns itself."""
        for crops in (self.train, self.val):
            crops.images, crops.labels = crops.images.to(device), crops.labels.to(device)
        return self

    @torch.no_grad()
    def figures(self, maps: Mapping[str, FeatureMap]) -> dict[str, dict[str, Any]]:
        """Figures of every network by head, as :func:`s3pt_mm.probes.evaluation.evaluate`."""
        figures: dict[str, dict[str, Any]] = {head: {} for head in HEADS}
        for name, feature_map in maps.items():
            known, new = (_features(feature_map, part.images) for part in (self.train, self.val))
            known, new = subtract_place(known, known), subtract_place(new, known)
            shares = label_shares(self.train.labels, known.shape[1], len(self.classes))
            keep = shares.sum(1) > 0
            memory = known.flatten(0, 2)[keep]
            for head, fit in HEADS.items():
                grid = fit(memory, shares[keep])(new.flatten(0, 2)).unflatten(0, new.shape[:3])
                figures[head][name] = scores(self._confusion(grid), self.classes)
        return figures

    def _confusion(self, grid: Tensor) -> np.ndarray:
        """(I, rows, columns, C) scores against the labels of the judging crops."""
        count = len(self.classes)
        total = torch.zeros(count * count, dtype=torch.int64, device=grid.device)
        for part, labels in zip(grid.split(_FORWARD), self.val.labels.split(_FORWARD), strict=True):
            large = F.interpolate(part.permute(0, 3, 1, 2), size=labels.shape[1:], mode='bilinear')
            known = labels != IGNORE
            pair = labels[known].long() * count + large.argmax(1)[known]
            total += torch.bincount(pair, minlength=count * count)
        return total.view(count, count).cpu().numpy()


def maps_of(backbone: nn.Module, seed: int) -> tuple[dict[str, FeatureMap], dict[str, FeatureMap]]:
    """What each run is probed with, and the controls that all runs of a seed share."""
    backbone.eval()  # mmpretrain's returns nothing
    controls = control_maps(backbone, seed=seed)
    own = {name: controls.pop(name) for name in list(controls) if 'same' in name}
    return {'network': feature_map_of(backbone), **own}, controls


def _features(feature_map: FeatureMap, images: Tensor) -> Tensor:
    """(I, rows, columns, d) float32."""
    parts = [feature_map(part.float()) for part in images.split(_FORWARD)]
    return torch.cat(parts).permute(0, 2, 3, 1).float()


def label_shares(labels: Tensor, side: int, count: int) -> Tensor:
    """Share of each class among the labelled pixels of each patch: (I side^2, C)."""
    parts = []
    for some in labels.split(_FORWARD):
        one_hot = F.one_hot(some.long().clamp(max=count), count + 1)[..., :count]
        cells = F.adaptive_avg_pool2d(one_hot.permute(0, 3, 1, 2).float(), side)
        parts.append(cells.permute(0, 2, 3, 1).flatten(0, 2))
    shares = torch.cat(parts)
    return shares / shares.sum(1, keepdim=True).clamp_min(1e-9)


def knn(memory: Tensor, shares: Tensor, *, k: int = 20, temperature: float = 0.02) -> Callable:
    """The probe of :func:`s3pt_mm.probes.evaluation.knn_head`, by matrix products."""
    rows = F.normalize(memory, dim=1)

    def predict(queries: Tensor) -> Tensor:
        found = []
        for part in queries.split(_AT_A_TIME):
            similarity, index = (F.normalize(part, dim=1) @ rows.t()).topk(min(k, len(rows)))
            weight = torch.softmax(similarity / temperature, 1)
            answer = torch.einsum('qk,qkc->qc', weight, shares[index])
            blank = ~part.any(1, keepdim=True)  # without direction: the memory's mean
            found.append(torch.where(blank, shares.mean(0), answer))
        return torch.cat(found)

    return predict


def linear(memory: Tensor, shares: Tensor) -> Callable:
    """A linear map fitted to convergence."""
    with torch.enable_grad():
        weight, bias = fit_linear(memory, shares)
    return lambda queries: F.linear(queries, weight, bias)


HEADS = dict(knn=knn, linear=linear)
