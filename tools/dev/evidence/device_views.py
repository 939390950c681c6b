"""Views of a whole batch made on a device from frames that lie there: no worker, no file, no wait.

The draws are those of :mod:`s3pt_mm.data.transforms` in distribution, not in bits; crops are
resized by the same bicubic filter, as two matrix products; colours go through the package's kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3pt_mm.data.labelled_images import IMAGENET_MEAN, IMAGENET_STD
from s3pt_mm.data.transforms import MultiCropViews
from s3pt_mm.data.transforms.photometric import Photometric
from s3pt_mm.kernels.device_views import crop_and_resize, mirrored
from s3pt_mm.kernels.photometric import NEUTRAL, colour_views
from s3pt_mm.method.algorithms.token_fields import TokenFields
from tools.dev.evidence.packed import Frames

_ATTEMPTS = 10


def draw_boxes(
    rng: np.random.Generator, sizes: np.ndarray, scale: Sequence[float], ratio: Sequence[float]
) -> np.ndarray:
    """Boxes of random resized crops, torchvision's rule; (n, 2) widths and heights -> (n, 4)."""
    width, height = sizes.T[:, :, None].astype(float)
    shape = (len(sizes), _ATTEMPTS)
    area = width * height * rng.uniform(*scale, shape)
    aspect = np.exp(rng.uniform(*np.log(ratio), shape))
    w, h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    row, first = np.arange(len(sizes)), fits.argmax(1)
    w, h, found = w[row, first], h[row, first], fits.any(1)
    width, height = width[:, 0], height[:, 0]
    # Else the largest box whose shape is allowed, in the middle.
    w = np.where(found, w, np.minimum(width, np.floor(height * ratio[1])))
    h = np.where(found, h, np.minimum(height, np.floor(width / ratio[0])))
    share = np.where(found, rng.uniform(size=(2, len(sizes))), 0.5)
    x0, y0 = np.floor(share * (np.stack([width - w, height - h]) + found))
    return np.stack([x0, y0, x0 + w, y0 + h], 1)


def draw_colours(rng: np.random.Generator, count: int, of: Photometric) -> np.ndarray:
    """(count, 11) draws as :func:`colour_views` reads them, distributed as ``of.draw``."""
    rows = np.tile(np.float32(NEUTRAL), (count, 1))
    rows[:, :4] = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
    jittered = rng.uniform(size=count) < of.jitter_prob
    for column, strength in enumerate((of.brightness, of.contrast, of.saturation), start=4):
        factors = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength, count)
        rows[:, column] = np.where(jittered, factors, 1.0)
    rows[:, 7] = np.where(jittered, rng.uniform(-of.hue, of.hue, count), 0.0)
    rows[:, 8] = rng.uniform(size=count) < of.grey_prob
    blurred = rng.uniform(size=count) < of.blur_prob
    rows[:, 9] = np.where(blurred, rng.uniform(*of.blur_sigma, count), 0.0)
    solarised = rng.uniform(size=count) < of.solarize_prob
    rows[:, 10] = np.where(solarised, of.solarize_threshold, 256)
    return rows


def cell_members(low: Tensor, high: Tensor, length: int, cells: int) -> Tensor:
    """(n, cells, length): 1 where a pixel's centre lies in a cell between ``low`` and ``high``."""
    centres = torch.arange(length, device=low.device) + 0.5
    cell = torch.floor((centres - low[:, None]) * cells / (high - low)[:, None])
    return (cell[:, None] == torch.arange(cells, device=low.device)[:, None]).float()


@dataclass
class Canvas:
    """Frames of several data sets on one device, in one tensor.

    Attributes:
        images: (n, 3, H, W) uint8, each in the upper left corner.
        sizes: (n, 2) widths and heights, on the host.
        depth: (m, h, w) metres over the whole image, 0 where none.
        depth_of: (n,) rows of ``depth``, the empty one where an image has none, on the host.
        epoch: Indices that an epoch goes through.
    """

    images: Tensor
    sizes: np.ndarray
    depth: Tensor
    depth_of: np.ndarray
    epoch: np.ndarray

    @classmethod
    def of(cls, sources: Mapping[str, Frames], repeats: Sequence[int], device: str) -> Canvas:
        """All pre-training images of ``sources``; one of ``repeats`` times an epoch."""
        chosen = [frames.images[frames.pretraining] for frames in sources.values()]
        sides = [max(part.shape[side] for part in chosen) for side in (2, 3)]
        total = sum(map(len, chosen))
        images = torch.zeros(total, 3, *sides, dtype=torch.uint8)
        sizes, depth_of, epoch, grids, start = [], [], [], [], 0
        for frames, part, repeat in zip(sources.values(), chosen, repeats, strict=True):
            images[start : start + len(part), :, : part.shape[2], : part.shape[3]] = part
            sizes += [part.shape[:1:-1]] * len(part)
            epoch += list(range(start, start + len(part))) * repeat
            start += len(part)
            for index in frames.pretraining.tolist():
                depth_of.append(len(grids) if index in frames.depth else -1)
                grids += [frames.depth[index]] if index in frames.depth else []
        grids.append(np.zeros(grids[0].shape if grids else (1, 1), np.float32))
        return cls(
            images.to(device),
            np.array(sizes),
            torch.from_numpy(np.stack(grids)).to(device),
            np.array(depth_of) % len(grids),
            np.array(epoch),
        )


class DeviceViews:
    """Batches of views with token fields.

    Args:
        canvas: Frames.
        batch_size: Images.
        seed: Of all draws.
        patch_size: Pixels of a token.
        options: Of :class:`MultiCropViews`.

    Attributes:
        geometry: Of the last batch's two global views, view by view: frames (2B,), boxes (2B, 4)
            and whether they are mirrored (2B,).
    """

    def __init__(
        self,
        canvas: Canvas,
        batch_size: int,
        seed: int,
        *,
        patch_size: int = 16,
        **options: Any,
    ) -> None:
        self.canvas, self.batch_size, self.patch_size = canvas, batch_size, patch_size
        self.rng = np.random.default_rng(seed)
        self.crops = MultiCropViews(**options)
        self.order = np.zeros(0, int)
        self.steps_per_epoch = len(canvas.epoch) // batch_size
        if not self.steps_per_epoch:
            raise ValueError(f'{len(canvas.epoch)} images an epoch, a batch {batch_size}')

    def next(self) -> tuple[list[Tensor], TokenFields]:
        """Normalised views, each (B, 3, h, w), globals first, and the fields of their tokens."""
        if len(self.order) < self.batch_size:
            self.order = self.rng.permutation(self.canvas.epoch)
        index, self.order = np.split(self.order, [self.batch_size])
        crops, batch = self.crops, len(index)
        draws, boxes, flips = [], [], []
        for scale, photometric in zip(crops.scales, crops.photometric, strict=True):
            boxes.append(draw_boxes(self.rng, self.canvas.sizes[index], scale, crops.ratio))
            flips.append(self.rng.uniform(size=batch) < crops.flip_prob)
            draws.append(draw_colours(self.rng, batch, photometric))
        seeds = torch.from_numpy(self.rng.integers(2**62, size=batch))
        device = self.canvas.images.device
        where = torch.from_numpy(index).to(device)
        spans = torch.from_numpy(np.stack(boxes)).float().to(device)
        mirror = torch.from_numpy(np.stack(flips)).to(device)
        views = []
        for size in dict.fromkeys(crops.sizes):
            own = [view for view, side in enumerate(crops.sizes) if side == size]
            begin, end = own[0], own[-1] + 1
            pixels = self._crop(where, spans[begin:end], mirror[begin:end], size)
            colours = torch.from_numpy(np.concatenate(draws[begin:end]))
            views += self._normalised(colour_views(pixels, colours)).split(batch)
        self.geometry = where.repeat(2), spans[:2].flatten(0, 1), mirror[:2].flatten()
        return views, self._fields(index, spans[:2], mirror[:2], seeds)

    def _crop(self, where: Tensor, spans: Tensor, mirror: Tensor, size: int) -> Tensor:
        """(B,) images cropped to (V, B, 4) boxes -> (V B, 3, size, size) uint8."""
        half = torch.float16 if where.is_cuda else torch.float32
        pixels = self.canvas.images[where].to(half).repeat(len(spans), 1, 1, 1)
        return crop_and_resize(pixels, spans.flatten(0, 1), mirror.flatten(), size)

    def _normalised(self, views: Tensor) -> Tensor:
        mean, deviation = (
            torch.tensor(values, device=views.device)[:, None, None]
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        return (views.float() - mean) / deviation

    def _fields(
        self, index: np.ndarray, spans: Tensor, mirror: Tensor, seeds: Tensor
    ) -> TokenFields:
        """Positions and depth of the tokens of both global views."""
        side = self.crops.size // self.patch_size
        flat, flip = spans.transpose(0, 1).flatten(0, 1), mirror.t().flatten()  # image by image
        x0, y0, x1, y1 = flat.unbind(1)
        share = (torch.arange(side, device=flat.device) + 0.5) / side
        along = torch.where(flip[:, None], 1 - share, share)
        x = x0[:, None] + (x1 - x0)[:, None] * along
        y = y0[:, None] + (y1 - y0)[:, None] * share
        xy = torch.stack(
            [x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1
        ).flatten(1, 2)
        rows = torch.from_numpy(np.repeat(self.canvas.depth_of[index], 2)).to(flat.device)
        grid = self.canvas.depth[rows]
        sizes = torch.from_numpy(np.repeat(self.canvas.sizes[index], 2, 0)).to(flat).unbind(1)
        across, down = (grid.shape[axis] / size for axis, size in zip((2, 1), sizes, strict=True))
        of_row = cell_members(y0 * down, y1 * down, grid.shape[1], side)
        of_column = mirrored(cell_members(x0 * across, x1 * across, grid.shape[2], side), flip)
        known = (grid > 0).float()
        count = of_row @ known @ of_column.transpose(1, 2)
        depth = (of_row @ grid @ of_column.transpose(1, 2)) / count.clamp_min(1)
        pair = (len(index), 2)
        return TokenFields(
            xy.unflatten(0, pair),
            seeds,
            depth.flatten(1).unflatten(0, pair),
            (count > 0).flatten(1).unflatten(0, pair),
        )
