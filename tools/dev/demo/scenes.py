"""What a trained teacher sees in two plain views of a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmpretrain.registry import DATASETS
from torch import Tensor
from torch.nn import functional as F

from s3pt_mm.method.algorithms import CrIBo
from s3pt_mm.method.clustering import Assignment, ObjectPooling
from s3pt_mm.resume.keyed_sampler import KeyedIndex

# Views of the pictures are cropped and mirrored as in training, but keep their colours.
PLAIN = dict(jitter_prob=0.0, grey_prob=0.0, blur_prob=(0.0, 0.0), solarize_prob=(0.0, 0.0))


@dataclass(frozen=True)
class Scene:
    """One image, its two views and what the method makes of them.

    Attributes:
        image: (H, W, 3) uint8, the photo at the resolution it was decoded to.
        points: (M, 3) projected LiDAR returns: u, v in pixels of the file, depth in metres.
        size: (width, height) of the file.
        views: Two (S, S, 3) uint8 views.
        labels: (2, n, n) cluster of each token.
        tokens: (2, n, n, d) teacher tokens.
        objects: (m, d) teacher object vectors of view 1.
        object_clusters: (m,) the cluster of each object.
    """

    image: np.ndarray
    points: np.ndarray
    size: tuple[int, int]
    views: list[np.ndarray]
    labels: np.ndarray
    tokens: Tensor
    objects: Tensor
    object_clusters: np.ndarray


def plain_dataset(dataset_cfg: dict):  # noqa: ANN201 - any registered pre-training dataset
    """The training data set without colour augmentation."""
    cfg = dict(dataset_cfg)
    cfg['pipeline'] = [
        {**step, **PLAIN} if step['type'] == 'TwoViews' else dict(step) for step in cfg['pipeline']
    ]
    return DATASETS.build(cfg)


@torch.no_grad()
def look(model: CrIBo, dataset, indices: Sequence[int], *, seed: int = 0) -> list[Scene]:  # noqa: ANN001
    """Encode and cluster images of ``dataset`` with the model's teacher.

    Args:
        model: A trained algorithm with object level, on the CPU.
        dataset: From :func:`plain_dataset`.
        indices: Items to look at.
        seed: Of the views.
    """
    items, raws = [], []
    steps = dataset.pipeline.transforms
    for index in indices:
        results = dataset.get_data_info(KeyedIndex(index, seed=seed, epoch=0))
        for step in steps:
            if type(step).__name__ == 'TwoViews':
                photo = results['img'].decode(2)
                raws.append(
                    (photo, results.get('lidar_uvd', np.zeros((0, 3))), results['img'].size)
                )
            results = step(results)
        items.append(results)
    batch = dict(
        inputs=[torch.stack([item['inputs'][view] for item in items]) for view in (0, 1)],
        data_samples=[item['data_samples'] for item in items],
    )
    batch = model.data_preprocessor(batch)
    _, tokens = model.encode(model.teacher, torch.cat(batch['inputs']))
    tokens = tokens.unflatten(0, (2, -1))
    assignment: Assignment = model.cluster(tokens, batch['data_samples'])
    pool = ObjectPooling.from_assignment(assignment)
    objects = pool(tokens)[0].split(pool.per_image.tolist())
    clusters = (pool.index % assignment.counts.shape[2]).split(pool.per_image.tolist())
    side = int(tokens.shape[2] ** 0.5)
    scenes = []
    for number, (photo, points, size) in enumerate(raws):
        scenes.append(
            Scene(
                image=photo,
                points=points,
                size=size,
                views=[items[number]['inputs'][v].permute(1, 2, 0).numpy() for v in (0, 1)],
                labels=assignment.labels[number].view(2, side, side).numpy(),
                tokens=tokens[:, number].unflatten(1, (side, side)),
                objects=F.normalize(objects[number], dim=1),
                object_clusters=clusters[number].numpy(),
            )
        )
    return scenes
