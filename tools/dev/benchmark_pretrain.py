"""A pre-training step, part by part, against the arithmetic that nobody can avoid.

The floor is the bare ViT on the same crops (teacher forward, student forward and backward, AdamW)
plus the prototype products of this batch's valid objects, each once, plus the exact search of
the queue: these are counted and divided by the matrix speed measured in the same run.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tools.dev.stopwatch import Stopwatch
from tools.dev.toydrive_data import add_data_arguments, pretraining_dataset
from tools.dev.training_step import TrainingStep, fill_queue

PARTS = (
    'teacher',
    'student forward',
    'clustering',
    'neighbours',
    'memory update',
    'heads and losses',
    'backward',
    'optimiser',
    'EMA',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``tools/dev/benchmark.py pretrain``."""
    parser.add_argument('config', help='a pre-training config')
    parser.add_argument('--batch', type=int, default=4, help='images (default 4)')
    parser.add_argument('--repeats', type=int, default=5, help='counted repetitions (default 5)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--amp', choices=('float16', 'bfloat16'), help='also time under autocast')
    parser.add_argument('--queue', choices=('full', 'empty'), default='full')
    parser.add_argument(
        '--objects-per-image',
        type=int,
        help='synthetic objects of a queue image; default: as many as the batch has',
    )
    parser.add_argument('--no-data', action='store_true', help='leave the data pipeline out')
    add_data_arguments(parser)
    parser.add_argument('--compare', metavar='GIT_REV', help='run the same on another revision')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})


def read_config(args: argparse.Namespace) -> Config:
    """The config with its options, its modules imported (``fromfile`` does), in its scope."""
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    init_default_scope('mmpretrain')
    return cfg


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the tables, and return the figures."""
    figures = measure(args)
    report(figures, args)
    if args.compare:
        compare_revision(args)
    return figures


class _Floor:
    """The bare ViT: teacher forward, student forward and backward, AdamW, on the same crops."""

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.student = copy.deepcopy(step.model.student['backbone'])
        self.teacher = copy.deepcopy(step.model.teacher['backbone'])
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-6, fused=True)

    def __call__(self, amp: torch.dtype | None = None) -> None:
        views = self.step.inputs
        with torch.autocast(self.step.device.type, amp, enabled=amp is not None):
            with torch.no_grad():
                self.teacher(torch.cat(views[:2]))
            groups = [views[:2], views[2:]] if len(views) > 2 else [views]
            loss = sum(self.student(torch.cat(group))[-1].float().sum() for group in groups)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def matrix_speed(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations per second of a square matrix product, best of 3."""
    left = torch.randn(size, size, device=device, dtype=dtype)
    watch, best = Stopwatch(device), float('inf')
    for _ in range(3):
        with watch.measure('product'):
            left @ left
        best = min(best, watch.take()['product'])
    return 2 * size**3 / best


def counted_operations(
    step: TrainingStep, losses: dict[str, Tensor], batch: int
) -> dict[str, float]:
    """Operations of prototype products and of the queue's search for this batch.

    A product of n rows with P prototypes of width D takes 2 n P D operations; the student's needs
    two more of that size in its backward pass.
    """
    head = step.model.student['head']
    size = 2 * head.image_prototypes.num_prototypes * head.image_prototypes.dimension
    counted = {'image-level prototypes': (2 * batch + 3 * step.num_crops * batch) * size}
    if 'objects_per_image' in losses:
        objects = 2 * batch * float(losses['objects_per_image'])
        neighbours = objects * float(losses['cycle_share'])
        counted['object-level prototypes'] = (objects + 3 * objects + neighbours) * size
        queue = step.model.queue
        counted['queue search'] = 2 * objects * len(queue) * queue.objects.shape[2]
    return counted


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Interleaved, repeated measurement; returns medians in seconds, counts and ratios."""
    cfg = read_config(args)
    torch.manual_seed(0)
    step = TrainingStep(cfg, args.batch, torch.device(args.device))
    amp = getattr(torch, args.amp) if args.amp else None
    losses = step()
    if hasattr(step.model, 'queue') and args.queue == 'full':
        fill_queue(step.model, args.objects_per_image or round(float(losses['objects_per_image'])))
    losses = step()
    peak = _peak_memory(step.device)  # before the floor's own networks exist
    floor = _Floor(step)
    floor()
    step.watch.take()
    whole, speed, rows = Stopwatch(step.device), [], []
    for _ in range(args.repeats):
        with whole.measure('step'):
            losses = step()
        parts = step.watch.take()
        with whole.measure('bare ViT'):
            floor()
        speed.append(matrix_speed(step.device, torch.float32))
        if amp is not None:
            for name, function in (('step, amp', step), ('bare ViT, amp', floor)):
                with whole.measure(name):
                    function(amp)
            step.watch.take()
        rows.append({**parts, **whole.take()})
    names = dict.fromkeys(name for row in rows for name in row)
    medians = {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}
    counted = counted_operations(step, losses, args.batch)
    flops = statistics.median(speed)
    seconds = {name: operations / flops for name, operations in counted.items()}
    floors = [row['bare ViT'] + sum(seconds.values()) for row in rows]
    extra = (
        medians.get('clustering', 0)
        + medians.get('neighbours', 0)
        + medians.get('memory update', 0)
    )
    figures = dict(
        medians=medians,
        counted=seconds,
        matrix_gflops=flops / 1e9,
        floor=statistics.median(floors),
        step_over_floor=statistics.median(
            row['step'] / f for row, f in zip(rows, floors, strict=True)
        ),
        images_per_second=args.batch / medians['step'],
        bookkeeping_share=max(extra - seconds.get('queue search', 0), 0) / medians['step'],
        peak_gb=peak,
        objects_per_image=float(losses.get('objects_per_image', 0)),
    )
    if not args.no_data:
        figures['data_seconds'] = data_seconds(cfg, args)
    if amp is not None:
        figures['amp_over_float32'] = medians['step, amp'] / medians['step']
    return figures


def data_seconds(cfg: Config, args: argparse.Namespace) -> float:
    """Seconds in which one worker of the data loader makes a batch, alone on its core."""
    watch, rounds = Stopwatch(torch.device('cpu')), []
    with pretraining_dataset(cfg, args) as dataset:
        for number in range(args.repeats + 1):
            with watch.measure('data'):
                for index in range(args.batch):
                    dataset.prepare_data((number * args.batch + index) % len(dataset))
            rounds.append(watch.take()['data'])
    return statistics.median(rounds[1:])


def _peak_memory(device: torch.device) -> float:
    """Gigabytes (1e9 bytes): of the process on a CPU, of the allocator on a GPU."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def report(figures: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the tables."""
    console = Console(width=100)
    medians, floor = figures['medians'], figures['floor']
    table = Table(
        title=f'{args.config}, {args.batch} images, {args.device}, median of {args.repeats}'
    )
    for column, justify in (('part', 'left'), ('seconds', 'right'), ('of the floor', 'right')):
        table.add_column(column, justify=justify)
    if 'data_seconds' in figures:
        seconds = figures['data_seconds']
        table.add_row('data (one worker, beside the step)', f'{seconds:.3f}', '')
    for name in PARTS:
        if name in medians:
            table.add_row(name, f'{medians[name]:.3f}', f'{medians[name] / floor:.3f}')
    table.add_row(
        'whole step',
        f'{medians["step"]:.3f}',
        f'{figures["step_over_floor"]:.3f}',
        end_section=True,
    )
    table.add_row(
        'floor: bare ViT', f'{medians["bare ViT"]:.3f}', f'{medians["bare ViT"] / floor:.3f}'
    )
    for name, seconds in figures['counted'].items():
        table.add_row(f'floor: {name} (counted)', f'{seconds:.3f}', f'{seconds / floor:.3f}')
    table.add_row('floor', f'{floor:.3f}', '1.000')
    console.print(table)
    console.print(
        f'matrix products {figures["matrix_gflops"]:.0f} GFLOP/s; '
        f'{figures["images_per_second"]:.2f} images/s; peak memory {figures["peak_gb"]:.2f} GB; '
        f'{figures["objects_per_image"]:.1f} objects an image; clustering, neighbours and memory '
        f'beyond the counted search: {100 * figures["bookkeeping_share"]:.1f} % of the step'
    )
    if 'amp_over_float32' in figures:
        console.print(f'{args.amp} step / float32 step: {figures["amp_over_float32"]:.3f}')


def compare_revision(args: argparse.Namespace) -> None:
    """Run this command line on another revision, in a work tree of its own."""
    root = Path(__file__).resolve().parents[2]
    words = sys.argv[1:]
    place = words.index('--compare')
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / 'tree'
        add = ['git', '-C', root, 'worktree', 'add', '--detach', tree, args.compare]
        subprocess.run(add, check=True, capture_output=True)
        try:
            command = [
                sys.executable,
                'tools/dev/benchmark.py',
                *words[:place],
                *words[place + 2 :],
            ]
            print(f'--- {args.compare} ---', flush=True)
            subprocess.run(command, check=True, cwd=tree)
        finally:
            subprocess.run(['git', '-C', root, 'worktree', 'remove', '--force', tree], check=True)
