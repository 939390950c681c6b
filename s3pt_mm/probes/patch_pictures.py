"""Patch tokens as people look at them: colours, small features for search, clusters of two views.

Tokens stay half precision on the host; sums over them run in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from s3pt_mm.data.labelled_images import IMAGENET_MEAN, IMAGENET_STD
from s3pt_mm.data.transforms.tokens import TokenGeometry
from s3pt_mm.data.transforms.views import TwoViews
from s3pt_mm.method.clustering import ClusteringConfig, cluster_joint_views, draw_first_tokens

_PERCENTILES = (0.02, 0.98)
_SAMPLE = 200_000  # values that percentiles are taken of
_NEAREST = 10
_MEASURED = 32  # images that the loss of small features is measured on


def _moments(tokens: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (d,) and second moment (d, d) over all tokens of all images, float64."""
    total, second, count = torch.zeros((), dtype=torch.float64), torch.zeros(()), 0
    for image in tokens:
        values = image.double()
        total = total + values.sum(0)
        second = second + values.T @ values
        count += len(values)
    return total / count, second / count


def _directions(second: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` first principal directions (d, count), and their shares of the whole."""
    values, vectors = torch.linalg.eigh(second)
    chosen = vectors.flip(1)[:, :count]
    # A direction has no sign of its own: its largest entry is positive.
    largest = chosen.gather(0, chosen.abs().argmax(0, keepdim=True))
    shares = values.flip(0)[:count] / values.clamp_min(0).sum()
    return chosen * largest.sign(), shares


@dataclass(frozen=True)
class Colours:
    """Three principal components as red, green and blue, the same for all images.

    Attributes:
        mean: (d,) that is subtracted.
        basis: (d, 3).
        low: (3,) value that is black; the 2nd percentile.
        high: (3,) value that is full colour; the 98th percentile.
        explained: share of the variance in the three.
        foreground: threshold; see :func:`fit_colours`. ``first`` decides then who is painted.
        first: colours before the threshold.
    """

    mean: Tensor
    basis: Tensor
    low: Tensor
    high: Tensor
    explained: float
    foreground: float | None = None
    first: Colours | None = None

    def scores(self, tokens: Tensor) -> Tensor:
        """(N, d) tokens -> (N, 3) float64, 0 at ``low`` and 1 at ``high``."""
        return ((tokens.double() - self.mean) @ self.basis - self.low) / (self.high - self.low)

    def is_foreground(self, tokens: Tensor) -> Tensor:
        """(N,) bool."""
        if self.first is None or self.foreground is None:
            return torch.ones(len(tokens), dtype=torch.bool)
        score = self.first.scores(tokens)[:, 0]
        return score > self.foreground if self.foreground >= 0 else score < -self.foreground

    def paint(self, tokens: Tensor) -> NDArray[np.uint8]:
        """(N, d) tokens -> (N, 3) RGB; background is black."""
        rgb = (self.scores(tokens).clamp(0, 1) * 255).round()
        return (rgb * self.is_foreground(tokens)[:, None]).byte().numpy()


def fit_colours(tokens: Sequence[Tensor], foreground: float | None = None) -> Colours:
    """One principal component analysis over all images.

    Args:
        tokens: (N, d) of each image.
        foreground: Paint only patches whose first component, 0 to 1 between its percentiles, is
            above this, and fit the colours to them; negative: below its absolute value.

    Raises:
        ValueError: Fewer than four patches remain.
    """
    mean, second = _moments(tokens)
    basis, shares = _directions(second - torch.outer(mean, mean), 3)
    step = max(1, 3 * sum(map(len, tokens)) // _SAMPLE)
    scores = torch.cat([(image[::step].double() - mean) @ basis for image in tokens])
    low, high = torch.quantile(scores, torch.tensor(_PERCENTILES, dtype=torch.float64), dim=0)
    high = torch.where(high > low, high, low + 1)  # all alike
    colours = Colours(mean, basis, low, high, float(shares.sum()))
    if foreground is None:
        return colours
    chooser = Colours(mean, basis, low, high, 0.0, foreground, colours)
    kept = [image[chooser.is_foreground(image)] for image in tokens]
    if sum(map(len, kept)) < 4:
        raise ValueError(f'--foreground {foreground}: no patch is on that side; try another number')
    inner = fit_colours([image for image in kept if len(image)])
    return Colours(
        inner.mean, inner.basis, inner.low, inner.high, inner.explained, foreground, colours
    )


@dataclass(frozen=True)
class SmallFeatures:
    """Features for cosine similarity in a browser.

    Attributes:
        values: int8 (N, m) of each image; a patch's cosine is that of these numbers.
        cosine_error: mean absolute error of the cosine, and its 99th percentile, against float32
            tokens, over random pairs and nearest ones.
        same_nearest: share of the 10 nearest patches (in other images) that stay among the 10.
    """

    values: list[NDArray[np.int8]]
    cosine_error: tuple[float, float]
    same_nearest: float


def shrink(tokens: Sequence[Tensor], dims: int, queries: int = 100) -> SmallFeatures:
    """Unit tokens on their first principal directions, a byte a number.

    The analysis is not centred, so that products of all tokens, which cosines are, change least.

    Args:
        tokens: (N, d) of each image.
        dims: m, at most d.
        queries: Patches that the loss is measured on, spread evenly.
    """
    basis, _ = _directions(_moments(map(_unit, tokens))[1], min(dims, tokens[0].shape[-1]))
    values = []
    for image in tokens:
        small = _unit(image) @ basis.float()
        # Scaled to the range of a byte patch by patch: a cosine does not see it.
        scale = small.abs().amax(1, keepdim=True).clamp_min(1e-12)
        values.append((small / scale * 127).round().to(torch.int8).numpy())
    some = np.unique(np.linspace(0, len(tokens) - 1, _MEASURED).astype(int))
    loss = _loss([_unit(tokens[i]) for i in some], [values[i] for i in some], queries)
    return SmallFeatures(values, *loss)


def _unit(tokens: Tensor) -> Tensor:
    return nn.functional.normalize(tokens.float(), dim=-1)


def _loss(
    unit: Sequence[Tensor], values: Sequence[NDArray[np.int8]], queries: int
) -> tuple[tuple[float, float], float]:
    owner = np.repeat(np.arange(len(unit)), [len(image) for image in unit])
    full, less = torch.cat(list(unit)), torch.cat([_unit(torch.from_numpy(v)) for v in values])
    errors, same = [], []
    for query in np.unique(np.linspace(0, len(full) - 1, queries).astype(int)):
        exact, near = full @ full[query], less @ less[query]
        errors.append((exact - near).abs())
        others = torch.from_numpy(owner != owner[query])
        if int(others.sum()) >= _NEAREST:
            top = [
                x.masked_fill(~others, -2).topk(_NEAREST).indices.tolist() for x in (exact, near)
            ]
            same.append(len(set(top[0]) & set(top[1])) / _NEAREST)
    error = torch.cat(errors).numpy()
    return (float(error.mean()), float(np.quantile(error, 0.99))), float(np.mean(same or [1.0]))


@dataclass(frozen=True)
class TwoCrops:
    """Two views of an image as pre-training draws them.

    Attributes:
        pixels: two (S, S, 3) uint8.
        boxes: (2, 4) source pixels.
        flips: (2,) bool.
    """

    pixels: Sequence[NDArray[np.uint8]]
    boxes: NDArray
    flips: NDArray


def draw_crops(image: NDArray[np.uint8], path: Path, index: int, size: int) -> TwoCrops:
    """Two views of an image, (h, w, 3) uint8 RGB; the draw follows ``index``.

    Raises:
        DataError: The image, which ``path`` names, is too small.
    """
    np.random.seed(index)
    results: dict[str, Any] = dict(img=image, img_path=str(path))
    results = TwoViews(size=size, allow_enlarging=True).transform(results)
    return TwoCrops(results['img'], results['view_boxes'], results['view_flips'])


@torch.no_grad()
def joint_clusters(
    model: nn.Module,
    crops: Sequence[TwoCrops],
    config: ClusteringConfig,
    *,
    patch: int,
    first: int,
    device: str,
) -> NDArray[np.int64]:
    """The method's clusters of the two views of each image, without depth.

    Args:
        model: See :func:`s3pt_mm.weights.any_vit.load_tokens`.
        crops: Images that share the range of the cost, as on a rank.
        config: Of the clustering.
        patch: Side of a patch, pixels; divides the views' side.
        first: Number of the first image, which seeds its first centroids.
        device: Where to compute.

    Returns:
        (images, 2, N) clusters.

    Raises:
        ValueError: More clusters than tokens, or the patch does not divide the view.
    """
    side = crops[0].pixels[0].shape[0]
    if side % patch:
        raise ValueError(f'--view-size {side}: no multiple of the patch, {patch}')
    pixels = torch.from_numpy(np.stack([view for crop in crops for view in crop.pixels]))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    (tokens,) = model(((pixels.permute(0, 3, 1, 2).float() - mean) / std).to(device))
    tokens = tokens[:, model.num_extra_tokens :].unflatten(0, (len(crops), 2)).flatten(1, 2)
    geometry = TokenGeometry(patch_size=patch)
    places = [
        geometry.transform(dict(img=c.pixels, view_boxes=c.boxes, view_flips=c.flips))['token_xy']
        for c in crops
    ]
    positions = torch.from_numpy(np.stack(places)).flatten(1, 2).to(tokens.device)
    seeds = torch.arange(first, first + len(crops))
    drawn = draw_first_tokens(
        seeds, len(crops), tokens.shape[1], config.num_clusters, tokens.device
    )
    labels = cluster_joint_views(tokens, positions, drawn, config).labels
    return labels.unflatten(1, (2, -1)).cpu().numpy()
