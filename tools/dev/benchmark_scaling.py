"""How a pre-training step grows: with images, with clusters, with objects.

``python tools/dev/benchmark.py scaling configs/s3pt/vits16_nuscenes.py`` prints three ratios of one
run: memory of heads and losses at four times the objects, seconds of a step at four times the
images, seconds of the clustering at twice the clusters.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
from dataclasses import replace
from typing import Any

import torch
from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from tools.dev.benchmark_pretrain import read_config
from tools.dev.memory import peak_bytes
from tools.dev.stopwatch import Stopwatch
from tools.dev.training_step import TrainingStep

TARGETS = {'memory': 1.05, 'images': 4.1, 'clusters': 2.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``tools/dev/benchmark.py scaling``."""
    parser.add_argument('config', help='a config of CrIBo or S3PT')
    parser.add_argument('--batch', type=int, default=4, help='images (default 4)')
    parser.add_argument('--objects', type=int, default=20, help='an image, at 1 x (default 20)')
    parser.add_argument('--repeats', type=int, default=3, help='counted repetitions (default 3)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})


def run(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure and print; returns ``{ratio: dict(small=..., large=..., ratio=...)}``."""
    cfg = read_config(args)
    torch.manual_seed(0)
    device = torch.device(args.device)
    small = TrainingStep(cfg, args.batch, device)
    figures = dict(
        memory=head_memory(small.model, args.batch, args.objects),
        clusters=clustering_time(small, args.repeats),
        images=step_time(cfg, small, args.batch, args.repeats),
    )
    table = Table(title=f'{args.config}, {args.device}, {args.batch} images at 1 x')
    for column in ('figure', '1 x', 'large', 'ratio', 'target, at most'):
        table.add_column(column, justify='left' if column == 'figure' else 'right')
    names = dict(
        memory='peak of heads and losses beside parameters and gradients, GB, objects x 4',
        clusters='clustering, seconds, clusters x 2',
        images='step, seconds, images x 4',
    )
    for key, row in figures.items():
        numbers = [f'{row[name]:.3f}' for name in ('small', 'large', 'ratio')]
        table.add_row(names[key], *numbers, f'{TARGETS[key]:.2f}')
    Console(width=120).print(table)
    return figures


def _row(small: float, large: float, ratio: float | None = None) -> dict[str, float]:
    return dict(small=small, large=large, ratio=large / small if ratio is None else ratio)


def head_memory(model: nn.Module, batch: int, objects: int) -> dict[str, float]:
    """Peak of both losses and their backward pass, without the gradients of the parameters.

    Args:
        model: CrIBo or S3PT.
        batch: Images.
        objects: Objects of an image at 1 x; 4 x may be as many as there are clusters.
    """
    queue, width = model.queue, model.student['backbone'].embed_dims
    device = queue.objects.device
    head = model.student['head']
    gradients = sum(p.numel() * p.element_size() for p in head.parameters() if p.requires_grad)

    def inputs(per_image: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        tokens = torch.randn(2, 2 * batch, width, device=device)
        found = torch.randn(2, 2, batch * per_image, width, device=device)
        counts = torch.full((batch,), per_image)
        return tokens[0].requires_grad_(), tokens[1], found[0].requires_grad_(), found[1], counts

    def losses(student: Tensor, teacher: Tensor, own: Tensor, theirs: Tensor, n: Tensor) -> None:
        learning = head.together(student, own.flatten(0, 1))
        with torch.no_grad():
            teaching = model.teacher['head'].together(teacher, theirs.flatten(0, 1))
        terms = model.image_loss(learning[0], teaching[0], 2)
        terms.update(model.object_loss(learning[1], teaching[1], model.look_up(theirs, [n])))
        sum(value for name, value in terms.items() if 'loss' in name).backward()
        head.zero_grad(set_to_none=True)

    losses(*inputs(objects))  # buffers of libraries, and something in the memory to find
    peaks = []
    for factor in (1, 4):
        given = inputs(factor * objects)
        peaks.append((peak_bytes(functools.partial(losses, *given), device) - gradients) / 1e9)
    return _row(*peaks)


def clustering_time(step: TrainingStep, repeats: int) -> dict[str, float]:
    """Seconds of the joint-view clustering at the config's and at twice the clusters."""
    model, watch, rows = step.model, Stopwatch(step.device), []
    with torch.no_grad():
        _, tokens = model.encode(model.teacher, torch.cat(step.inputs[:2]))
    tokens = tokens.unflatten(0, (2, -1))
    config = model.clustering
    try:
        for number in range(repeats + 1):
            for name, factor in (('small', 1), ('large', 2)):
                model.clustering = replace(config, num_clusters=factor * config.num_clusters)
                with watch.measure(name):
                    model.cluster(tokens, step.samples)
            taken = watch.take()
            if number:
                rows.append((taken['small'], taken['large']))
    finally:
        model.clustering = config
    return _medians(rows)


def step_time(cfg: Config, small: TrainingStep, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of a whole step at ``batch`` and at four times as many images, in turn."""
    large = copy.copy(small)
    large.make_batch(cfg, 4 * batch)
    watch, rows = Stopwatch(small.device), []
    for number in range(repeats + 1):
        for name, step in (('small', small), ('large', large)):
            with watch.measure(name):
                step()
        taken = watch.take()
        if number:
            rows.append((taken['small'], taken['large']))
    return _medians(rows)


def _medians(rows: list[tuple[float, float]]) -> dict[str, Any]:
    median = statistics.median
    return _row(
        median(row[0] for row in rows),
        median(row[1] for row in rows),
        median(large / small for small, large in rows),
    )
