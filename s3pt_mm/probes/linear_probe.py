"""A linear head fitted to convergence on patch features: seconds, and no learning rate to choose.

The probes of ``tools/train.py`` follow the protocol: so many iterations of AdamW on augmented
crops. After few of them what is compared is how fast a linear map can be learnt, and features that
live in few directions are slow to learn from whatever they know. Here the same linear map (one 1x1
convolution) is fitted to the training images' patches by L-BFGS until it stands still. The target
of a patch is the share of each class among its pixels, the loss their cross-entropy with a small
penalty on the weights of standardised features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.probes.confusion import confusion_matrix, scores
from s3pt_mm.probes.dense_knn import FeatureMap, draw_memory, extract_patches, largest_class


def fit_linear(
    features: Tensor, shares: Tensor, *, penalty: float = 1e-5, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    """Weights and bias of the best linear classifier of patches.

    Args:
        features: (M, d).
        shares: (M, C); rows sum to 1.
        penalty: On the squared weights of features with mean 0 and deviation 1.
        iterations: Of L-BFGS at most.

    Returns:
        (C, d) and (C,), for the features as given.
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-12)
    standard = (features - mean) / deviation
    weight = torch.zeros(shares.shape[1], features.shape[1], requires_grad=True)
    bias = torch.zeros(shares.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, history_size=10, line_search_fn='strong_wolfe'
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(standard, weight, bias), shares)
        value = value + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    scaled = weight.detach() / deviation
    return scaled, bias.detach() - scaled @ mean


def evaluate_linear_probe(
    feature_map: FeatureMap,
    train: LabelledImages,
    val: LabelledImages,
    *,
    memory_size: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    device: torch.device | str = 'cpu',
    **settings: Any,
) -> dict[str, Any]:
    """Figures of a linear head fitted on ``train``, counted on ``val`` at full resolution.

    Args:
        feature_map: See :func:`s3pt_mm.probes.dense_knn.extract_patches`.
        train: Images to fit on.
        val: Images to segment.
        memory_size: Patches to fit on at most, drawn by ``seed``; None takes all.
        seed: Of that draw.
        batch_size: Images at a time.
        device: Where ``feature_map`` computes.
        settings: Of :func:`fit_linear`.

    Returns:
        ``dict(mIoU, mAcc, aAcc, IoU={class: percent}, Acc={class: percent}, memory_size)``.
    """
    if train.class_set != val.class_set:
        raise ValueError(f'Class sets differ: {train.class_set.name} and {val.class_set.name}.')
    classes = val.class_set.classes
    features, shares = draw_memory(
        *extract_patches(feature_map, train, batch_size=batch_size, device=device),
        num_classes=len(classes),
        memory_size=memory_size,
        seed=seed,
    )
    weight, bias = fit_linear(features, torch.from_numpy(shares), **settings)
    grids, label_maps = extract_patches(feature_map, val, batch_size=batch_size, device=device)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for grid, label_map in zip(F.linear(grids, weight, bias), label_maps, strict=True):
        prediction = largest_class(grid, label_map.shape)
        confusion += confusion_matrix(prediction, label_map, num_classes=len(classes))
    return dict(scores(confusion, classes), memory_size=len(features))
