"""From nothing to a report: data, a short S3PT run, pictures. Every step is kept if it is done."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
from rich.console import Console

from s3pt_mm.hosts.options import read_options
from tools.dev.demo.steps import ROOT, run_tool, until_stopped

CONFIG = 'configs/toydrive/demo_s3pt_vitt16.py'
# What the probe looks at; ToyDrive's default of 512 is for learning from labels, and takes longer.
# Of Cityscapes' format enough to try it: nothing here looks at it.
PHOTOS = {'--nuimages-train': 64, '--cityscapes-train': 12, '--cityscapes-val': 6}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``tools/dev/make_demo.py``."""
    parser.add_argument('--data', type=Path, default=Path('data/toydrive'), help='ToyDrive folder')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'), help='run and report')
    parser.add_argument('--seed', type=int, default=0, help='of initialisation and data order')
    parser.add_argument('--config', default=CONFIG)
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', default=[], help='as of tools/train.py'
    )


def run(args: argparse.Namespace) -> Path:
    """All steps; returns the report's path."""
    console, start = Console(), time.perf_counter()

    def say(text: str) -> None:
        console.print(f'[bold]{time.perf_counter() - start:5.0f} s[/bold]  {text}')

    args.out.mkdir(parents=True, exist_ok=True)
    data = args.data.resolve()
    say(f'ToyDrive in {args.data}')
    prepare_data(data)
    say(f'S3PT pre-training, {args.config}')
    cfg = train(args, data)
    say('pictures and report')
    report = make_report(args.out, cfg)
    say(f'done: open {report}')
    return report


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run; a stop ends in one line that says how to go on."""
    parser = argparse.ArgumentParser(description='ToyDrive, a short S3PT run and a report')
    add_arguments(parser)
    args = parser.parse_args(argv)
    until_stopped(lambda: run(args))


def prepare_data(data: Path) -> None:
    """ToyDrive, its info files and its masks, each unless it is there.

    A ToyDrive of another size or seed that lies there is used as it is.
    """
    from s3pt_mm.toydrive.generation import RECORD  # brings the ray caster: two seconds

    if not (data / RECORD).is_file():  # written when everything else is
        photos = [str(word) for pair in PHOTOS.items() for word in pair]
        run_tool('tools/create_toydrive.py', '--out', data, *photos)
    nuscenes, nuimages = data / 'nuscenes', data / 'nuimages'
    if not (nuscenes / 'nuscenes_infos_val.parquet').is_file():
        run_tool(
            *('tools/create_data.py', 'nuscenes', '--root', nuscenes),
            *('--version', 'v1.0-mini', '--out-dir', nuscenes, '--image-sweeps'),
        )
    if not (nuimages / 'nuimages_val.json').is_file():
        run_tool('tools/create_data.py', 'nuimages', '--root', nuimages, '--out-dir', nuimages)


def train(args: argparse.Namespace, data: Path) -> Config:
    """Run ``tools/train.py``, or go on where it was stopped; returns the config that ran."""
    options: dict[str, Any] = {
        'randomness.seed': args.seed,
        'train_dataloader.sampler.seed': args.seed,
        'train_dataloader.dataset.data_root': f'{data}/nuscenes/',
    }
    cfg = Config.fromfile(ROOT / args.config, import_custom_modules=False)
    if 'knn_probe' in cfg.default_hooks:
        for split in ('train', 'val'):
            key = f'default_hooks.knn_probe.{split}.ann_file'
            options[key] = f'{data}/nuimages/nuimages_{split}.json'
    options |= read_options(args.cfg_options, cfg)
    command = ['tools/train.py', args.config, '--work-dir', str(args.out.resolve()), '--resume']
    run_tool(*command, '--cfg-options', *(f'{key}={value}' for key, value in options.items()))
    cfg.merge_from_dict(options)
    return cfg


def make_report(out: Path, cfg: Config) -> Path:
    """Draw the pictures of a finished run in ``out`` and write ``report.html`` beside them."""
    from s3pt_mm.common.reading import read_checkpoint
    from tools.dev.demo import pictures
    from tools.dev.demo.report import Section, class_table, write_report
    from tools.dev.demo.scenes import look, plain_dataset

    import_modules_from_strings(**cfg.custom_imports)
    init_default_scope('mmpretrain')
    from mmpretrain.registry import MODELS

    checkpoint = Path((out / 'last_checkpoint').read_text().strip())
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    model.load_state_dict(read_checkpoint(checkpoint)['state_dict'])
    dataset = plain_dataset(cfg.train_dataloader.dataset)
    count = min(48, len(dataset))
    torch.manual_seed(0)
    scenes = look(model, dataset, [i * len(dataset) // count for i in range(count)])
    log = read_log(out)
    history = json.loads((out / 'knn_probe.json').read_text())
    sections = [
        Section(
            'Dense k-NN mIoU over training',
            'The teacher labels each patch of unseen crops by its nearest patches of labelled '
            'ones, without the mean feature of each place; no head is trained. Only what lies '
            'above the best control (dotted) was learned.',
            pictures.draw_knn(history, out / 'knn.png'),
        ),
        Section(
            'Losses and the health of the teacher',
            'Entropy near the logarithm of the number of prototypes means a uniform teacher; KL '
            'near it means that all images choose one prototype.',
            pictures.draw_losses(log, out / 'losses.png'),
        ),
        Section(
            'LiDAR returns in the camera image',
            'Carried through both ego poses: they must sit on what they hit.',
            pictures.draw_lidar(scenes[:2], out / 'lidar.png'),
        ),
        Section(
            'Joint clusters of two views',
            'Equal colours are one cluster. Tokens of one object in both views should agree.',
            pictures.draw_clusters(scenes[:4], out / 'clusters.png'),
        ),
        Section(
            'Features',
            'First three principal components of the tokens as red, green and blue.',
            pictures.draw_pca(scenes[:6], out / 'pca.png'),
        ),
        Section(
            'Nearest neighbours of an object',
            'Left: an object of an image. Right: the nearest objects of other images, with cosine.',
            pictures.draw_neighbours(scenes, out / 'neighbours.png'),
        ),
    ]
    last = history[-1]
    best = last['controls'][last['best_control']]['mIoU']
    facts = {
        'config': str(cfg.filename and Path(cfg.filename).relative_to(ROOT)),
        'seed': str(cfg.randomness.seed),
        'iterations': str(last['iteration']),
        'images': str(len(dataset)),
        'place-free dense k-NN mIoU, teacher at the end': f'{last["mIoU"]:.2f} %',
        f'best control ({last["best_control"]})': f'{best:.2f} %',
        'gain over the best control': f'{last["gain"]:+.2f} points, one seed',
    }
    return write_report(
        out / 'report.html',
        title='S3PT on ToyDrive',
        facts=facts,
        table=class_table(last),
        sections=sections,
    )


def read_log(out: Path) -> list[dict[str, Any]]:
    """Lines of all JSON logs of a run, in order of steps; a resumed run repeats none."""
    lines: dict[int, dict[str, Any]] = {}
    for path in sorted(out.glob('*/vis_data/scalars.json')):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            if 'loss' in line:
                lines[line['step']] = line
    return [lines[step] for step in sorted(lines)]
