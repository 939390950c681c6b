"""The protocol's sweep: one probe, three learning rates, the best mIoU is reported.

Each learning rate trains in a folder of its own through ``s3pt-train --resume`` (so a killed
sweep goes on where it was, inside a run too) and ends with ``result.json``. Runs go one after
another, or one on each GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from s3pt_mm.common.checksums import content_of
from s3pt_mm.common.files import write_json
from s3pt_mm.common.shipped import shipped
from s3pt_mm.reports.tables import write_table

LEARNING_RATES = (8e-4, 3e-4, 8e-5)
"""Of the supplement; the best is reported."""

TRAIN = shipped('tools/train.py')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('config')
    parser.add_argument('checkpoint', help='pre-training checkpoint, or the word "random"')
    parser.add_argument('--out-dir', help='default: work_dirs/sweep/<config>_<checkpoint>')
    parser.add_argument('--lr', type=float, nargs='+', default=LEARNING_RATES)
    parser.add_argument('--gpus', nargs='+', help='device numbers; one run on each at a time')
    parser.add_argument(
        '--max-iters',
        type=int,
        help="another length than the config's; schedule and validation follow",
    )
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='KEY=VALUE, handed on to s3pt-train'
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say; prints the table."""
    stem = f'{Path(args.config).stem}_{Path(args.checkpoint).stem}'
    out_dir = Path(args.out_dir or Path('work_dirs') / 'sweep' / stem)
    summary = sweep(
        args.config,
        args.checkpoint,
        out_dir=out_dir,
        learning_rates=args.lr,
        gpus=args.gpus,
        max_iters=args.max_iters,
        options=args.cfg_options,
    )
    print((out_dir / 'sweep.md').read_text())
    return summary


def _recipe(config: str) -> str | None:
    """A hash of what a config says, with all that it inherits; None for none, which training
    refuses."""
    path = Path(config)
    path = path if path.is_file() else shipped('configs') / config.removeprefix('configs/')
    if not path.is_file():
        return None
    from mmengine.config import Config

    text = Config.fromfile(path, import_custom_modules=False).dump()
    return hashlib.sha256(text.encode()).hexdigest()


def sweep(
    config: str,
    checkpoint: str,
    *,
    out_dir: Path,
    learning_rates: Sequence[float] = LEARNING_RATES,
    gpus: Sequence[str] | None = None,
    max_iters: int | None = None,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Train every learning rate, unless it is done, and report the best.

    Args:
        config: Segmentation config.
        checkpoint: Pre-training checkpoint, or ``random``.
        out_dir: One folder a learning rate, and ``sweep.{json,csv,md}``.
        learning_rates: Values of ``optim_wrapper.optimizer.lr``.
        gpus: Devices, one run on each at a time; None: one after another, on all there are.
        max_iters: Iterations; the schedule's end and the validation interval follow.
        options: More ``KEY=VALUE`` for ``--cfg-options``.

    Returns:
        ``dict(settings, runs=[dict(lr, mIoU, ...)], best=dict(...))``.

    Raises:
        ValueError: ``out_dir`` holds a sweep of other settings.
        RuntimeError: A run failed; the message names its log.
    """
    settings = dict(
        config=str(config),
        checkpoint=str(checkpoint),
        content=content_of(checkpoint),
        recipe=_recipe(str(config)),
        max_iters=max_iters,
        options=list(options),
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    record = out_dir / 'settings.json'
    if record.is_file():
        there = json.loads(record.read_text())
        changed = {
            key: (there.get(key), settings[key])
            for key in settings
            if there.get(key) != settings[key]
        }
        if changed:
            raise ValueError(
                f'{out_dir} holds a sweep of other settings (there, now): {changed}. Give another '
                '--out-dir, or delete that folder.'
            )
    write_json(record, settings)
    options = [
        *options,
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
    ]
    if max_iters is not None:
        options += [
            f'train_cfg.max_iters={max_iters}',
            f'train_cfg.val_interval={max_iters}',
            f'param_scheduler.0.end={max_iters}',
        ]
    devices: queue.Queue[str | None] = queue.Queue()
    for device in gpus or [None]:
        devices.put(device)

    def one(lr: float) -> dict[str, Any]:
        device = devices.get()
        try:
            return _train(config, lr, out_dir / f'lr_{rate_text(lr)}', options, device)
        except BaseException:
            # Here, not where results are collected: this thread would begin the next one first.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            devices.put(device)

    with ThreadPoolExecutor(devices.qsize()) as pool:
        runs = list(pool.map(one, learning_rates))
    best = max(runs, key=lambda row: row['mIoU'])
    summary = dict(settings=settings, runs=runs, best=best)
    write_json(out_dir / 'sweep.json', summary)
    rows = [
        dict(
            lr=rate_text(row['lr']),
            mIoU=row['mIoU'],
            mAcc=row['mAcc'],
            aAcc=row['aAcc'],
            best='best' if row is best else None,
        )
        for row in runs
    ]
    write_table(
        rows,
        ('lr', 'mIoU', 'mAcc', 'aAcc', 'best'),
        out_dir / 'sweep',
        ('md', 'csv'),
        caption=f'{Path(config).stem}, weights {checkpoint}: last validation, percent',
        float_format='.2f',
    )
    return summary


def rate_text(lr: float) -> str:
    """A rate's shortest exact text, ``8e-04`` or ``1.25e-03``: two rates never share a folder."""
    return np.format_float_scientific(lr, trim='-', exp_digits=2)


def _train(
    config: str, lr: float, work_dir: Path, options: Sequence[str], device: str | None
) -> dict[str, Any]:
    result = work_dir / 'result.json'
    work_dir.mkdir(parents=True, exist_ok=True)
    log, figures = work_dir / 'sweep.log', work_dir / 'val.json'
    # The child inherits the lock: when a sweep is killed, the next one waits for its orphan, which
    # saves and leaves (SIGTERM at the parent's death), before it trains in the same folder.
    with open(work_dir / '.lock', 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if result.is_file():
            return json.loads(result.read_text())
        print(f'lr {lr:g}: training in {work_dir}', flush=True)
        command = [
            sys.executable, str(TRAIN), str(config), '--resume', '--work-dir', str(work_dir),
            '--cfg-options', *options, f'optim_wrapper.optimizer.lr={lr}',
            f'val_evaluator.result_file={figures}',
        ]  # fmt: skip
        environment = dict(os.environ)
        if device is not None:
            environment['CUDA_VISIBLE_DEVICES'] = device
        with open(log, 'a', encoding='utf-8') as stream:
            code = subprocess.call(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock.fileno(),),
                preexec_fn=_terminate_with_parent,
            )
        if code != 0 or not figures.is_file():
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-5:])
            raise RuntimeError(
                f'Training at lr {lr:g} ended with status {code}; the same command goes on where '
                f'it stopped. Log: {log}\n{tail}'
            )
        row = dict(lr=lr, **json.loads(figures.read_text()))
        write_json(result, row)
        return row


def _terminate_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent dies, however it dies; elsewhere do nothing."""
    if sys.platform == 'linux':
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    run(parser.parse_args(argv))
