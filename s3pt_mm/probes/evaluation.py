"""From networks and labelled images to figures beside their controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.probes.confusion import confusion_matrix, scores
from s3pt_mm.probes.controls import control_maps, feature_map_of
from s3pt_mm.probes.dense_knn import PatchMemory, largest_class
from s3pt_mm.probes.linear_probe import fit_linear
from s3pt_mm.probes.patches import FeatureMap, Patches, draw_memory, probe_patches

Predict = Callable[[Tensor], Tensor]
"""Patch features (rows, columns, d) -> class scores (rows, columns, C)."""
Head = Callable[[Tensor, np.ndarray], Predict]
"""Memory features (M, d) and label shares (M, C) -> what labels new patches."""


def knn_head(*, k: int = 30, temperature: float = 0.02) -> Head:
    """Labels of the ``k`` nearest patches by cosine; weights softmax(similarity / temperature)."""

    def fit(features: Tensor, shares: np.ndarray) -> Predict:
        memory = PatchMemory(features, shares)

        def predict(grid: Tensor) -> Tensor:
            found = memory.classify(grid.flatten(0, 1), k=k, temperature=temperature)
            return found.unflatten(0, grid.shape[:2])

        return predict

    return fit


def linear_head(**settings: Any) -> Head:
    """A linear map fitted to convergence; ``settings`` of :func:`fit_linear`."""

    def fit(features: Tensor, shares: np.ndarray) -> Predict:
        weight, bias = fit_linear(features, torch.from_numpy(shares), **settings)
        return partial(F.linear, weight=weight, bias=bias)

    return fit


def evaluate(
    feature_maps: Mapping[str, FeatureMap],
    train: LabelledImages,
    val: LabelledImages,
    heads: Mapping[str, Head],
    *,
    memory_size: int | None = 100_000,
    seed: int = 0,
    **settings: Any,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures of every network under every head, all from the same patches.

    Args:
        feature_maps: Networks by name, in eval mode.
        train: Images to fit on.
        val: Images to segment, counted at the resolution of their label maps.
        heads: Probes by name.
        memory_size: Patches to fit on at most, drawn by ``seed``; None takes all.
        seed: Of that draw and of the crops.
        settings: Of :func:`s3pt_mm.probes.patches.probe_patches`.

    Returns:
        By head, then by network: ``dict(mIoU, mAcc, aAcc, IoU={class: percent}, Acc={class:
        percent}, memory_size)``.
    """
    patches = probe_patches(feature_maps, train, val, seed=seed, **settings)
    classes = val.class_set.classes
    figures: dict[str, dict[str, Any]] = {name: {} for name in heads}
    for network, (known, new) in patches.items():
        memory, shares = draw_memory(
            known.features,
            known.label_maps,
            num_classes=len(classes),
            memory_size=memory_size,
            seed=seed,
        )
        for name, head in heads.items():
            confusion = _confusion(head(memory, shares), new, len(classes))
            figures[name][network] = dict(scores(confusion, classes), memory_size=len(memory))
    return figures


def _confusion(predict: Predict, patches: Patches, num_classes: int) -> np.ndarray:
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for grid, label_map in zip(patches.features, patches.label_maps, strict=True):
        prediction = largest_class(predict(grid), label_map.shape)
        confusion += confusion_matrix(prediction, label_map, num_classes=num_classes)
    return confusion


def evaluate_with_controls(
    backbone: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    heads: Mapping[str, Head],
    *,
    seed: int = 0,
    known: Mapping[str, Mapping[str, dict[str, Any]]] | None = None,
    **settings: Any,
) -> dict[str, dict[str, Any]]:
    """Figures of a trained ViT beside its controls, by head.

    Args:
        backbone: mmpretrain's ViT; computes where its weights are.
        train: See :func:`evaluate`.
        val: See :func:`evaluate`.
        heads: See :func:`evaluate`.
        seed: Of crops, memory and untrained weights.
        known: Controls that were evaluated already, by head and name, of the same seed, images and
            settings: :data:`s3pt_mm.probes.controls.CONSTANT` ones do not change over a training.
        settings: Of :func:`evaluate`.

    Returns:
        By head the figures of ``backbone`` and ``controls`` (figures by name), ``best_control``
        (its name) and ``gain`` (mIoU over the best control, points).
    """
    was_training = backbone.training
    backbone.eval()
    known = known or {name: {} for name in heads}
    done = set.intersection(*(set(known[name]) for name in heads))
    maps = {'network': feature_map_of(backbone), **control_maps(backbone, seed=seed)}
    maps = {name: feature_map for name, feature_map in maps.items() if name not in done}
    device = next(backbone.parameters()).device
    try:
        figures = evaluate(maps, train, val, heads, seed=seed, device=device, **settings)
    finally:
        backbone.train(was_training)
    return {name: beside_controls({**known[name], **found}) for name, found in figures.items()}


def beside_controls(figures: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures of ``'network'`` with all others as its controls."""
    controls = dict(figures)
    network = controls.pop('network')
    best = max(controls, key=lambda name: controls[name]['mIoU'])
    gain = network['mIoU'] - controls[best]['mIoU']
    return dict(network, controls=controls, best_control=best, gain=gain)
