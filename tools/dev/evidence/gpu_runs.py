"""One run of the GPU ladder: the package's models and losses on views made on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from s3pt_mm.method.hooks import TeacherUpdateHook
from s3pt_mm.method.param_groups import clip_each_tensor
from s3pt_mm.probes.controls import feature_map_of, untrained
from tools.dev.evidence.device_probe import Probe, maps_of
from tools.dev.evidence.device_views import Canvas, DeviceViews
from tools.dev.evidence.labelled_views import LabelledViews
from tools.dev.evidence.ladder import MILD, ROOT, SUPERVISED, rung_parts
from tools.dev.evidence.packed import load

# As published at this number of tokens: 32 and 128 clusters of 392, here of 288. The memory holds
# less than an epoch, so that a neighbour is another photo.
RUNGS = rung_parts(clusters=(24, 96), queue=(384, 64))
RUNGS.pop('DINO, equal compute')
_FULL = RUNGS['+ depth (S3PT)']
_TWO = {**_FULL, 'clustering': {**_FULL['clustering'], 'rounds': 2}}
MORE = {'S3PT, two rounds': _TWO}
ARCHS = dict(
    tiny=dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768),
    small=dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    least=dict(embed_dims=48, num_layers=2, num_heads=2, feedforward_channels=96),
)
_SHORT = dict(lr=1e-3, batch_norm=True, init='xavier', prototypes=1024, mild=False, teacher=0.99)
# What CrIBo may choose from, on a seed that no table shows.
SHORT = 'head for short runs'
RECIPES: dict[str, dict[str, Any]] = {
    'as published': {**_SHORT, 'lr': 5e-4, 'batch_norm': False, 'init': 'trunc_normal'},
    SHORT: _SHORT,
    'half the rate': {**_SHORT, 'lr': 5e-4},
    'twice the rate': {**_SHORT, 'lr': 2e-3},
    'mild colours': {**_SHORT, 'mild': True},
    '256 prototypes': {**_SHORT, 'prototypes': 256},
    'slower teacher': {**_SHORT, 'teacher': 0.996},
    'patch filters held': {**_SHORT, 'freeze': True},
    'stem of convolutions': {**_SHORT, 'stem': 'convolutions'},
}


@dataclass(frozen=True)
class Settings:
    """What all runs share.

    Attributes:
        arch: A name of ``ARCHS``.
        size: Pixels of a view.
        batch: Images a step.
        device: Where.
        crops: Of a probe's training images, about.
    """

    arch: str
    size: int
    batch: int
    device: str
    crops: int


CONTROLS = 'controls'


def bound_of(source: str) -> str:
    """Name of the run that is trained with a source's labels."""
    return f'{SUPERVISED}, {source}'


class Runs:
    """Trains and probes, one run after another, on one device.

    Args:
        settings: What all share.
        data: Folder of packed data sets.
        sources: Their names.
        repeats: Times that each one's images come in an epoch; None: about as many of each.
    """

    def __init__(
        self,
        settings: Settings,
        data: Path,
        sources: Sequence[str],
        repeats: Sequence[int] | None = None,
    ) -> None:
        init_default_scope('mmpretrain')
        self.settings = settings
        self.frames = {name: load(data / f'{name}.npz') for name in sources}
        lengths = [len(frames.pretraining) for frames in self.frames.values()]
        repeats = repeats or [round(max(lengths) / length) for length in lengths]
        self.canvas = Canvas.of(self.frames, repeats, settings.device)
        self.probes = {
            name: Probe(frames, settings.size, settings.crops).to(settings.device)
            for name, frames in self.frames.items()
        }

    def one(
        self, rung: str, seed: int, recipe: str, steps: int, *, warm: int = 0
    ) -> dict[str, Any]:
        """Figures of one run; its name says what is trained.

        Args:
            rung: See ``RUNGS``, ``MORE``, ``bound_of``; ``CONTROLS`` trains nothing.
            seed: Of everything.
            recipe: A name of ``RECIPES``.
            steps: Of the optimiser.
            warm: Steps before the clock runs: a process's first ones measure its start.

        Returns:
            ``probes``: by source and head, the figures of the networks that are this run's own.
        """
        torch.manual_seed(seed)
        chosen = RECIPES[recipe]
        if warm:
            self._pretrain(rung, seed, chosen, warm)
        begin = time.monotonic()
        health: dict[str, float] = {}
        if rung == CONTROLS:
            backbone = self._untrained(seed, chosen)
        elif rung.startswith(SUPERVISED):
            backbone = self._bound(rung.removeprefix(bound_of('')), seed, chosen, steps)
        else:
            backbone, health = self._pretrain(rung, seed, chosen, steps)
        trained = time.monotonic() - begin
        if not all(bool(torch.isfinite(p).all()) for p in backbone.parameters()):
            raise FloatingPointError(f'{rung}: weights are not finite')
        if backbone.cls_token.is_cuda:  # other processes share the memory
            torch.cuda.empty_cache()
        maps = maps_of(backbone, seed)[rung == CONTROLS]
        probes = {name: probe.figures(maps) for name, probe in self.probes.items()}
        return dict(
            training_seconds=round(trained, 1),
            probe_seconds=round(time.monotonic() - begin - trained, 1),
            steps_per_second=steps / trained,
            health=health,
            probes=probes,
        )

    def views(self, rung: str, seed: int, recipe: Mapping[str, Any]) -> DeviceViews:
        """Views of a rung: DINO has local ones, too."""
        local = 4 if rung == 'DINO' else 0
        size = self.settings.size
        options = dict(size=size, num_local=local, local_size=size // 2, scale=(0.25, 1.0))
        options |= MILD if recipe['mild'] else {}
        return DeviceViews(self.canvas, self.settings.batch, seed, **options)

    def config(self, rung: str, recipe: Mapping[str, Any]) -> Config:
        """The model of a rung."""
        name = 'dino' if rung == 'DINO' else 'cribo'
        cfg = Config.fromfile(ROOT / f'configs/_base_/models/{name}_vits16.py')
        cfg.merge_from_dict(dict(model={**RUNGS, **MORE}[rung]))
        backbone = dict(arch=ARCHS[self.settings.arch], img_size=self.settings.size)
        stem = recipe.get('stem', 'patches')
        cfg.model.backbone.update(backbone, drop_path_rate=0.0, stem=stem)
        cfg.model.head.update(
            num_prototypes=recipe['prototypes'],
            hidden_channels=1024,
            bottleneck_channels=128,
            batch_norm=recipe['batch_norm'],
            init=recipe['init'],
        )
        cfg.model.freeze_patch_embed = recipe.get('freeze', False)
        tokens = 2 * (self.settings.size // cfg.model.backbone.patch_size) ** 2
        if 'clustering' in cfg.model:  # views for tests have few tokens
            count = cfg.model.clustering.num_clusters
            cfg.model.clustering.num_clusters = min(count, tokens // 2)
        return cfg

    def _pretrain(
        self, rung: str, seed: int, recipe: Mapping[str, Any], steps: int
    ) -> tuple[nn.Module, dict[str, float]]:
        from mmpretrain.registry import MODELS

        model = MODELS.build(self.config(rung, recipe).model)
        model.init_weights()
        model.to(self.settings.device)
        views = self.views(rung, seed, recipe)
        momentum = TeacherUpdateHook(start=recipe['teacher']).momentum
        layers = model.student['head'].prototype_layers()
        kept: dict[str, Tensor] = {}

        def loss(step: int) -> Tensor:
            model.epoch = step // views.steps_per_epoch
            for layer in layers:
                layer.frozen = step < steps // 20
            inputs, fields = views.next()
            found = model.loss(inputs, fields)
            kept.update((name, value.detach()) for name, value in found.items())
            return sum(value for name, value in found.items() if 'loss' in name)

        self._optimise(
            model.student, loss, steps, recipe['lr'],
            after=lambda step: model.update_teacher(momentum(step, steps)),
        )  # fmt: skip
        health = {name: round(float(value), 4) for name, value in kept.items()}
        return model.teacher['backbone'], health

    def _optimise(
        self,
        module: nn.Module,
        loss: Callable[[int], Tensor],
        steps: int,
        lr: float,
        after: Callable[[int], None] = lambda step: None,
    ) -> None:
        """AdamW: a tenth of the steps up, then a cosine down; tensors clipped one by one."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        groups = [
            dict(params=[p for p in parameters if p.ndim > 1], weight_decay=0.04),
            dict(params=[p for p in parameters if p.ndim <= 1], weight_decay=0.0),
        ]
        device = torch.device(self.settings.device)
        fused = device.type == 'cuda'
        optimizer = torch.optim.AdamW(groups, lr=lr, fused=fused)
        warm = max(1, steps // 10)
        for step in range(steps):
            rate = min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group['lr'] = lr * rate
            with torch.autocast(device.type, torch.bfloat16, enabled=fused):
                value = loss(step)
            optimizer.zero_grad()
            value.backward()
            clip_each_tensor([p for p in parameters if p.grad is not None], 3.0)
            optimizer.step()
            after(step)
        if fused:
            torch.cuda.synchronize()

    def _untrained(self, seed: int, recipe: Mapping[str, Any]) -> nn.Module:
        from mmpretrain.registry import MODELS

        backbone = MODELS.build(self.config('CrIBo', recipe).model.backbone)
        return untrained(backbone, seed=seed).to(self.settings.device)

    def _bound(self, source: str, seed: int, recipe: Mapping[str, Any], steps: int) -> nn.Module:
        """The same ViT trained with the labels of the probe's own training images."""
        backbone = self._untrained(seed, recipe).requires_grad_(True)
        backbone.train()
        frames = self.frames[source]
        labelled = LabelledViews(
            frames, self.settings.batch, seed, self.settings.size, self.settings.device, **MILD
        )
        head = nn.Linear(backbone.embed_dims, len(frames.classes)).to(self.settings.device)
        nn.init.zeros_(head.weight)
        tokens = feature_map_of(backbone)

        def loss(step: int) -> Tensor:
            images, shares = labelled.next()
            logits = head(tokens(images).flatten(2).transpose(1, 2)).float()
            return -(shares * logits.log_softmax(-1)).sum() / shares.sum().clamp_min(1)

        self._optimise(nn.ModuleList([backbone, head]), loss, steps, 1e-3)
        return backbone
