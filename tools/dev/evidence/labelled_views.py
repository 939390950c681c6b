"""Crops of labelled images and the shares of classes in their patches, made on a device."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from s3pt_mm.data.class_sets import IGNORE
from tools.dev.evidence.device_views import Canvas, DeviceViews
from tools.dev.evidence.packed import Frames


class LabelledViews:
    """Crops of labelled images and the shares of classes in their patches, made on the device."""

    def __init__(
        self,
        frames: Frames,
        batch_size: int,
        seed: int,
        size: int,
        device: str,
        **colours: Any,
    ) -> None:
        chosen = frames.train
        labels = [torch.from_numpy(frames.labels[int(index)]) for index in chosen]
        self.labels = torch.stack(labels).to(device)
        self.count, self.size = len(frames.classes), size
        only = replace(frames, pretraining=chosen, depth={})
        canvas = Canvas.of({frames.name: only}, [math.ceil(batch_size / len(chosen))], device)
        options = dict(size=size, num_local=0, scale=(0.1, 0.75), **colours)
        self.views = DeviceViews(canvas, batch_size, seed, **options)

    def next(self) -> tuple[Tensor, Tensor]:
        """Both views of a batch, (2B, 3, s, s) normalised, and (2B, N, C) shares."""
        inputs, _ = self.views.next()
        where, spans, mirror = self.views.geometry
        side, height, width = self.size // 16, *self.labels.shape[1:]
        steps = (torch.arange(self.size, device=spans.device) + 0.5) / self.size
        x0, y0, x1, y1 = spans.unbind(1)
        along = torch.where(mirror[:, None], 1 - steps, steps)
        x = (x0[:, None] + (x1 - x0)[:, None] * along).long().clamp(0, width - 1)
        y = (y0[:, None] + (y1 - y0)[:, None] * steps).long().clamp(0, height - 1)
        labels = self.labels[where[:, None, None], y[:, :, None], x[:, None, :]].long()
        one_hot = F.one_hot(labels.where(labels != IGNORE, self.count), self.count + 1)
        cells = F.adaptive_avg_pool2d(one_hot[..., : self.count].permute(0, 3, 1, 2).float(), side)
        return torch.cat(inputs), cells.flatten(2).transpose(1, 2)
