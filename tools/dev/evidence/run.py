"""All runs of the ladder, one after another; whatever is done is kept and skipped."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from s3pt_mm.common.files import write_json, write_text
from s3pt_mm.probes.controls import CONSTANT, untrained
from s3pt_mm.probes.evaluation import evaluate_with_controls, knn_head, linear_head
from tools.dev.demo.run import read_log
from tools.dev.evidence.data import SOURCES, Source
from tools.dev.evidence.ladder import (
    RECIPES,
    ROOT,
    SUPERVISED,
    images_of,
    make_config,
    rungs_of,
)
from tools.dev.evidence.page import write_page
from tools.dev.evidence.supervised import train_supervised

HELD_OUT = 100  # seed that chooses the recipe and enters no table
_HEADS = dict(knn=knn_head(k=20), linear=linear_head())


@dataclass(frozen=True)
class Job:
    """One run and its figures."""

    source: Source
    rung: str
    seed: int
    images: int
    recipe: str
    folder: Path

    @property
    def figures(self) -> Path:
        """Where they are written when all is done."""
        return self.folder / 'figures.json'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``tools/dev/make_evidence.py``."""
    for name in SOURCES:
        parser.add_argument(f'--{name}', type=Path, metavar='FOLDER')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'))
    parser.add_argument('--images', type=int, default=7680, help='that each rung sees')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--crops', type=int, default=4, help='of each labelled image')
    parser.add_argument(
        '--recipe', choices=RECIPES, help='train by this one instead of choosing it with CrIBo'
    )
    parser.add_argument('--rungs', nargs='+', help='some of them only')
    parser.add_argument('--until', help='HH:MM; no run begins after it')
    parser.add_argument('--quick', action='store_true', help='shows that it runs: two steps each')


def run(args: argparse.Namespace) -> Path:
    """All runs; returns the page's path. Stopped, the same command goes on."""
    folders = {name: getattr(args, name) for name in SOURCES if getattr(args, name)}
    if not folders:
        sys.exit(f'evidence: no data; give one or more of {", ".join(f"--{n}" for n in SOURCES)}')
    if args.quick:
        args.images, args.seeds, args.crops = 2 * 16, args.seeds[:1], 1
    args.out.mkdir(parents=True, exist_ok=True)
    sources = [SOURCES[name](folder, args.out / 'cache') for name, folder in folders.items()]
    console, start = Console(soft_wrap=True), time.monotonic()
    settings = dict(images=args.images, crops=args.crops, sources=sorted(folders))
    share_settings(args.out / 'settings.json', settings)
    for source in sources:
        recipe = args.recipe or _choose(source, args, console)
        jobs = list(_jobs(source, recipe, args))
        for number, job in enumerate(jobs, start=1):
            if job.figures.is_file():
                continue
            if args.until and time.strftime('%H:%M') >= args.until:
                console.print(f'{args.until}: no run begins any more')
                return write_page(args.out)
            console.print(
                f'{time.monotonic() - start:6.0f} s  {source.name} {number}/{len(jobs)}: '
                f'{job.rung}, seed {job.seed}'
            )
            _finish(job, args.crops)
            write_page(args.out)
    return write_page(args.out)


def share_settings(path: Path, settings: dict[str, Any]) -> None:
    """Note what the runs of a folder share; runs of other sizes must not enter its table."""
    if path.is_file():
        known = json.loads(path.read_text())
        differ = [key for key in ('images', 'crops') if known[key] != settings[key]]
        if differ:
            sys.exit(
                f'evidence: {path.parent} holds runs with '
                + ', '.join(f'{key} {known[key]}, not {settings[key]}' for key in differ)
                + '; choose another --out'
            )
    write_json(path, settings)


def _jobs(source: Source, recipe: str, args: argparse.Namespace) -> Iterator[Job]:
    """Seed by seed, so that what is done at any time is a whole ladder."""
    rungs = [*rungs_of(source), SUPERVISED]
    for seed in args.seeds:
        for rung in args.rungs or rungs:
            yield _job(source, rung, seed, recipe, args)


def _job(source: Source, rung: str, seed: int, recipe: str, args: argparse.Namespace) -> Job:
    stem = ''.join(c if c.isalnum() else '_' for c in f'{rung}')
    folder = args.out / source.name / recipe.replace(' ', '_').replace(',', '') / stem / str(seed)
    return Job(source, rung, seed, images_of(rung, args.images), recipe, folder)


def _choose(source: Source, args: argparse.Namespace, console: Console) -> str:
    """The recipe under which CrIBo gains most over the best control, on a seed of its own."""
    gains = {}
    for recipe in RECIPES:
        job = _job(source, 'CrIBo', HELD_OUT, recipe, args)
        if not job.figures.is_file():
            console.print(f'{source.name}: recipe {recipe!r} for CrIBo, held-out seed')
            _finish(job, args.crops)
        figures = json.loads(job.figures.read_text())
        gains[recipe] = (figures['knn']['gain'] + figures['linear']['gain']) / 2
    best = max(gains, key=gains.__getitem__)
    write_json(args.out / source.name / 'recipe.json', dict(chosen=best, gains=gains))
    return best


def _finish(job: Job, crops: int) -> None:
    """Train and probe one run; its figures appear when both are done."""
    start, losses = time.monotonic(), {}
    if job.rung == SUPERVISED:
        backbone = _supervised(job)
    else:
        cfg = make_config(
            job.source, job.rung, seed=job.seed, images=job.images, recipe=RECIPES[job.recipe]
        )
        path = job.folder / 'config.py'
        write_text(path, cfg.pretty_text)
        command = [sys.executable, str(ROOT / 'tools/train.py'), str(path.resolve())]
        command += ['--work-dir', str(job.folder.resolve()), '--resume']
        with open(job.folder / 'train.log', 'a') as log:
            subprocess.run(command, check=True, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        backbone, losses = _teacher(job, cfg), final_losses(job.folder)
    trained = time.monotonic() - start
    figures = evaluate_with_controls(
        backbone,
        job.source.train,
        job.source.val,
        _HEADS,
        seed=job.seed,
        crops=crops,
        known=_known_controls(job),
    )
    write_json(
        job.figures,
        dict(
            source=job.source.name,
            rung=job.rung,
            seed=job.seed,
            images=job.images,
            recipe=job.recipe,
            training_seconds=trained,
            losses=losses,
            **figures,
        ),
    )


def _known_controls(job: Job) -> dict[str, dict[str, Any]] | None:
    """Those that no training changes, of any finished run of this data set and seed."""
    for path in job.folder.parents[2].glob(f'*/*/{job.seed}/figures.json'):
        found = json.loads(path.read_text())
        return {head: {name: found[head]['controls'][name] for name in CONSTANT} for head in _HEADS}
    return None


def final_losses(folder: Path) -> dict[str, float]:
    """Each loss, nats, over the last tenth of the steps that a run logged."""
    lines = read_log(folder)
    last = [line for line in lines if line['step'] > 0.9 * lines[-1]['step']]
    names = [name for name in last[-1] if name.startswith('loss')]
    return {name: sum(line[name] for line in last) / len(last) for name in names}


def _backbone(cfg: Any) -> torch.nn.Module:
    from mmpretrain.registry import MODELS

    from s3pt_mm.method import backbone  # noqa: F401 - registers it

    return MODELS.build(dict(cfg.model.backbone))


def _teacher(job: Job, cfg: Any) -> torch.nn.Module:
    from s3pt_mm.common.models import load_strictly

    backbone = _backbone(cfg)
    load_strictly(
        backbone, (job.folder / 'last_checkpoint').read_text().strip(), 'teacher.backbone.'
    )
    return backbone


def _supervised(job: Job) -> torch.nn.Module:
    cfg = make_config(
        job.source, 'CrIBo', seed=job.seed, images=job.images, recipe=RECIPES[job.recipe]
    )
    backbone = untrained(_backbone(cfg), seed=job.seed).requires_grad_(True)
    return train_supervised(backbone, job.source.labelled, steps=job.images // 16, seed=job.seed)
