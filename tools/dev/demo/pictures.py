"""Pictures of a pre-training run: curves, LiDAR, clusters, features, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import numpy as np  # noqa: E402
import torch  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from tools.dev.demo.scenes import Scene  # noqa: E402

_LOSSES = {
    'loss': 'sum',
    'loss_image': 'image',
    'loss_cross_view': 'cross-view',
    'loss_cross_image': 'cross-image',
}


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=100, bbox_inches='tight', facecolor='white')
    plt.close(figure)
    return path


def draw_losses(log: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Loss terms and the teacher's health over iterations, from the lines of a run's JSON log."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
    for key, name in _LOSSES.items():
        lines = [line for line in log if key in line]
        if lines:
            left.plot([line['step'] for line in lines], [line[key] for line in lines], label=name)
    left.set(xlabel='iteration', ylabel='loss')
    left.legend(frameon=False)
    for key, name in (
        ('teacher_entropy', 'entropy of a target'),
        ('teacher_kl_uniform', 'KL of the mean target to uniform'),
    ):
        lines = [line for line in log if key in line]
        right.plot([line['step'] for line in lines], [line[key] for line in lines], label=name)
    right.set(xlabel='iteration', ylabel='nats')
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[['top', 'right']].set_visible(False)
    return _save(figure, path)


def draw_knn(history: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Dense k-NN mIoU (percent) of the teacher over training, above its best control or below."""
    figure, axis = plt.subplots(figsize=(5.4, 3.6))
    steps = [point['iteration'] for point in history]
    best = [point['controls'][point['best_control']]['mIoU'] for point in history]
    axis.plot(steps, [point['mIoU'] for point in history], marker='o', label='teacher')
    axis.plot(steps, best, linestyle=':', color='grey', label='best control')
    axis.margins(y=0.12)
    axis.legend(frameon=False)
    axis.set(xlabel='iteration', ylabel='place-free dense k-NN mIoU, %')
    axis.spines[['top', 'right']].set_visible(False)
    return _save(figure, path)


def draw_lidar(scenes: Sequence[Scene], path: Path) -> Path:
    """Photos with the projected LiDAR returns, coloured by depth."""
    figure, axes = plt.subplots(1, len(scenes), figsize=(6.2 * len(scenes), 3.9), squeeze=False)
    for axis, scene in zip(axes[0], scenes, strict=True):
        axis.imshow(scene.image, extent=(0, scene.size[0], scene.size[1], 0))
        dots = axis.scatter(
            *scene.points[:, :2].T, c=scene.points[:, 2], s=3, cmap='turbo_r', vmax=60
        )
        figure.colorbar(dots, ax=axis, fraction=0.026, pad=0.01, label='depth, m')
        axis.axis('off')
    return _save(figure, path)


def _colours(count: int) -> np.ndarray:
    return plt.get_cmap('gist_ncar')(np.linspace(0.03, 0.95, count))[:, :3]


def draw_clusters(scenes: Sequence[Scene], path: Path) -> Path:
    """Both views of each image with their joint clusters; equal colour is one cluster."""
    figure, axes = plt.subplots(len(scenes), 4, figsize=(11, 2.8 * len(scenes)), squeeze=False)
    for row, scene in zip(axes, scenes, strict=True):
        palette = np.random.default_rng(0).permutation(_colours(int(scene.labels.max()) + 1))
        for view in (0, 1):
            picture = scene.views[view]
            labels = np.kron(
                scene.labels[view], np.ones((len(picture) // len(scene.labels[view]),) * 2)
            )
            row[2 * view].imshow(picture)
            row[2 * view + 1].imshow(0.35 * picture / 255 + 0.65 * palette[labels.astype(int)])
            row[2 * view].set_title(f'view {view + 1}', fontsize=9)
            row[2 * view + 1].set_title('its clusters', fontsize=9)
        for axis in row:
            axis.axis('off')
    return _save(figure, path)


def draw_pca(scenes: Sequence[Scene], path: Path) -> Path:
    """First three principal components of the teacher's tokens, fitted over all views, as RGB."""
    tokens = torch.cat([scene.tokens.flatten(0, 2) for scene in scenes])
    mean = tokens.mean(0)
    _, _, basis = torch.pca_lowrank(tokens - mean, q=3)
    low, high = torch.quantile((tokens - mean) @ basis, torch.tensor([0.02, 0.98]), dim=0)
    figure, axes = plt.subplots(2, len(scenes), figsize=(2.6 * len(scenes), 5.3), squeeze=False)
    for column, scene in enumerate(scenes):
        rgb = (((scene.tokens[0] - mean) @ basis - low) / (high - low)).clamp(0, 1)
        axes[0][column].imshow(scene.views[0])
        axes[1][column].imshow(rgb.numpy())
        axes[0][column].axis('off')
        axes[1][column].axis('off')
    return _save(figure, path)


def draw_neighbours(
    scenes: Sequence[Scene], path: Path, *, queries: int = 4, found: int = 5
) -> Path:
    """Objects of the first images that have any, and their nearest in other images (cosine)."""
    owner = np.repeat(np.arange(len(scenes)), [len(s.objects) for s in scenes])
    cluster = np.concatenate([s.object_clusters for s in scenes])
    vectors = torch.cat([s.objects for s in scenes])
    figure, axes = plt.subplots(queries, found + 1, figsize=(1.9 * (found + 1), 2.0 * queries))
    for axis in axes.flat:
        axis.axis('off')
    for row, query_scene in zip(axes, np.unique(owner)[:queries], strict=False):
        mine = np.flatnonzero(owner == query_scene)
        # The largest object is mostly road: the one of median size says more.
        sizes = [(scenes[query_scene].labels[0] == cluster[i]).sum() for i in mine]
        query = mine[np.argsort(sizes)[len(mine) // 2]]
        similarity = vectors @ vectors[query]
        similarity[torch.from_numpy(owner == query_scene)] = -2
        nearest, seen = [], set()
        for index in similarity.argsort(descending=True).tolist():
            if owner[index] not in seen:  # one object an image: neighbours should come from far
                nearest.append(index)
                seen.add(owner[index])
            if len(nearest) == found:
                break
        for axis, index in zip(row, [query, *nearest], strict=False):
            scene = scenes[owner[index]]
            mask = (scene.labels[0] == cluster[index]).astype(float)
            mask = np.kron(mask, np.ones((len(scene.views[0]) // len(mask),) * 2))
            axis.imshow(scene.views[0] / 255 * (0.35 + 0.65 * mask[..., None]))
            axis.contour(mask, levels=[0.5], colors='yellow', linewidths=1)
            title = 'object' if index == query else f'{float(similarity[index]):.2f}'
            axis.set_title(title, fontsize=8)
    return _save(figure, path)
