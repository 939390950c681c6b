"""A pre-training step on made views, in parts that a stopwatch can tell apart."""

from __future__ import annotations

import torch
from mmengine.config import Config
from torch import Tensor, nn

from tools.dev.stopwatch import Stopwatch


def synthetic_batch(
    model: nn.Module, batch: int, num_crops: int, local_size: int, size: int, device: torch.device
) -> tuple[list[Tensor], list]:
    """Structured noise: two overlapping views with geometry, depth on half the tokens."""
    from mmpretrain.structures import DataSample

    patch = model.student['backbone'].patch_embed.projection.kernel_size[0]
    side = size // patch
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, 3, 14, 14, generator=generator)
    photo = nn.functional.interpolate(coarse, size=(2 * size, 2 * size), mode='bicubic')
    inputs = [photo[:, :, :size, :size], photo[:, :, size // 4 :, size // 4 :][:, :, :size, :size]]
    inputs += [photo[:, :, :local_size, :local_size]] * (num_crops - 2)
    ticks = (torch.arange(side) + 0.5) * patch
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing='xy'), -1).flatten(0, 1)
    samples = []
    for index in range(batch):
        sample = DataSample()
        sample.set_field(torch.stack([grid, grid + size // 4]), 'token_xy')
        sample.set_field(torch.rand(2, side * side, generator=generator) * 60, 'token_depth')
        has = torch.rand(2, side * side, generator=generator) < 0.5
        sample.set_field(has, 'token_has_depth')
        sample.set_field(torch.tensor(index), 'sample_seed')
        samples.append(sample)
    return [view.contiguous().to(device) for view in inputs], samples


def fill_queue(model: nn.Module, per_image: int) -> None:
    """Fill the memory with unit noise, ``per_image`` objects in each of its Q images."""
    queue = model.queue
    per_image = max(1, min(per_image, queue.max_objects_per_image))
    channels = queue.objects.shape[2]
    for begin in range(0, queue.num_images, 256):
        images = min(256, queue.num_images - begin)
        rows = torch.randn(2, images * per_image, channels, device=queue.objects.device)
        queue.push(rows, torch.full((images,), per_image))


class TrainingStep:
    """One training step as the runner does it, in measurable parts.

    Args:
        cfg: A pre-training config.
        batch: Images.
        device: Where it runs.
    """

    def __init__(self, cfg: Config, batch: int, device: torch.device) -> None:
        from mmpretrain.registry import MODELS

        self.device = device
        self.model = MODELS.build(cfg.model).to(device)
        self.model.epoch = 1  # the cross-image term is on
        self.make_batch(cfg, batch)
        parameters = [p for p in self.model.student.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
        self.watch = Stopwatch(device)
        self._attach()

    def make_batch(self, cfg: Config, batch: int) -> None:
        """Crops as the config's pipeline gives them, for ``batch`` images."""
        crops = next(
            step
            for step in cfg.train_dataloader.dataset.pipeline
            if 'Views' in step.type and step.type != 'PackViews'
        )
        self.num_crops = 2 + crops.get('num_local', 10 if crops.type == 'MultiCropViews' else 0)
        local = crops.get('local_size', 96)
        self.inputs, self.samples = synthetic_batch(
            self.model, batch, self.num_crops, local, crops.size, self.device
        )

    def _attach(self) -> None:
        model, watch = self.model, self.watch
        teacher = model.teacher
        watch.wrap(
            model,
            'encode',
            lambda network, _: 'teacher' if network is teacher else 'student forward',
        )
        for attribute, name in (('cluster', 'clustering'), ('look_up', 'neighbours')):
            if hasattr(model, attribute):
                watch.wrap(model, attribute, name)
        if hasattr(model, 'queue'):
            watch.wrap(model.queue, 'push', 'memory update')

    def __call__(self, amp: torch.dtype | None = None) -> dict[str, Tensor]:
        """One step; returns its losses and figures, detached."""
        watch = self.watch
        with (
            watch.measure('heads and losses'),
            torch.autocast(self.device.type, amp, enabled=amp is not None),
        ):
            losses = self.model.loss(self.inputs, self.samples)
            loss = sum(value for name, value in losses.items() if 'loss' in name)
        with watch.measure('backward'):
            loss.backward()
        with watch.measure('optimiser'):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        with watch.measure('EMA'):
            self.model.update_teacher(0.999)
        return {name: value.detach() for name, value in losses.items()}
