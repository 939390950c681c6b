"""The bound: the same small ViT trained *with* the labels, judged by the same probes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3pt_mm.data.class_sets import IGNORE
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.probes.controls import feature_map_of

_MEMORY_SIDE = (240, 400)  # pixels that images are kept at while training


def _load(images: LabelledImages) -> tuple[Tensor, Tensor]:
    """All images (I, 3, h, w) and labels (I, h, w), small enough to stay in memory."""
    small = LabelledImages(images.pairs, class_set=images.class_set, image_size=_MEMORY_SIDE)
    pictures, labels = [], []
    for item in (small[index] for index in range(len(small))):
        pictures.append(item.image)
        label = torch.from_numpy(item.label_map).float()[None, None]
        labels.append(F.interpolate(label, size=_MEMORY_SIDE, mode='nearest')[0, 0].byte())
    return torch.stack(pictures), torch.stack(labels)


def train_supervised(
    backbone: nn.Module,
    images: LabelledImages,
    *,
    steps: int,
    batch_size: int = 16,
    view: int = 128,
    lr: float = 1e-3,
    colours: float = 0.15,
    seed: int = 0,
) -> nn.Module:
    """Train ``backbone`` in place to name each patch's classes; returns it.

    Args:
        backbone: mmpretrain's ViT.
        images: Labelled images to train on.
        steps: Optimiser steps.
        batch_size: Crops a step.
        view: Side of a crop, pixels.
        lr: Peak of AdamW's rate: a tenth of the steps up, then a cosine down.
        colours: Deviation of the random matrix and shift that mix each crop's colours.
        seed: Of crops and of the classifier.
    """
    classes = len(images.class_set.classes)
    pictures, labels = _load(images)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(backbone.embed_dims, classes)
    parameters = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.04)
    warm = max(1, steps // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    tokens = feature_map_of(backbone)
    backbone.train()
    for _ in range(steps):
        views, shares = _batch(pictures, labels, classes, batch_size, view, generator)
        mixing = torch.eye(3) + colours * torch.randn(batch_size, 3, 3, generator=generator)
        shift = colours * torch.randn(batch_size, 3, 1, 1, generator=generator)
        views = torch.einsum('bij,bjhw->bihw', mixing, views) + shift
        grid = view // int(backbone.patch_embed.projection.kernel_size[0])
        target = F.adaptive_avg_pool2d(shares, grid).flatten(2).transpose(1, 2)
        logits = head(tokens(views).flatten(2).transpose(1, 2))
        loss = -(target * logits.log_softmax(-1)).sum() / target.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    backbone.eval()
    return backbone


def _batch(
    pictures: Tensor, labels: Tensor, classes: int, size: int, view: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random crops (B, 3, view, view), mirrored half of the time, and their classes one-hot."""
    height, width = pictures.shape[-2:]
    views, shares = [], []
    for _ in range(size):
        draw = torch.rand(5, generator=generator).tolist()
        index = int(draw[0] * len(pictures))
        side = int(height * (0.5 + 0.5 * draw[1]))
        top, left = int(draw[2] * (height - side)), int(draw[3] * (width - side))
        box = slice(top, top + side), slice(left, left + side)
        picture = pictures[index, :, box[0], box[1]][None]
        label = labels[index, box[0], box[1]][None, None].float()
        picture = F.interpolate(picture, size=(view, view), mode='bilinear', antialias=True)[0]
        label = F.interpolate(label, size=(view, view), mode='nearest')[0, 0].long()
        known = (label != IGNORE).float()
        one_hot = F.one_hot(label.where(label != IGNORE, 0), classes).permute(2, 0, 1) * known
        flip = [-1] if draw[4] < 0.5 else []
        views.append(picture.flip(flip))
        shares.append(one_hot.flip(flip))
    return torch.stack(views), torch.stack(shares)
