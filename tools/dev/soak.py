"""Trains a config for some thousand iterations and watches for leaks; kills data workers on the
way.

    python tools/dev/soak.py configs/toydrive/s3pt_vitt16.py \
        --cfg-options train_dataloader.batch_size=4

Prints a table, writes readings.csv, and ends with status 1 if memory after the warm-up is not flat
within 2 %, file handles or shared memory pile up, or a killed worker is not replaced. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from mmengine.config import Config  # noqa: E402

from tools.dev.soak_readings import Reading, finished_iterations, judge, read_process  # noqa: E402


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('--iterations', type=int, default=1400)
    parser.add_argument(
        '--warm-up',
        type=int,
        default=600,
        help='iterations that do not count: the allocator still grows in the first 600',
    )
    parser.add_argument('--kill-workers', type=int, default=2, help='SIGKILL so many data workers')
    parser.add_argument('--seconds', type=float, default=2.0, help='between two readings')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/soak'))
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    args = parser.parse_args()
    if args.iterations < 2 * args.warm_up:
        parser.error(
            f'--iterations {args.iterations} with --warm-up {args.warm_up}: what is left is too '
            'short to tell a leak from warming up; train at least twice as long as that'
        )
    return args


def main() -> int:
    """Trains, watches, judges. Returns the exit status."""
    args = parse_args()
    shutil.rmtree(args.work_dir, ignore_errors=True)
    args.work_dir.mkdir(parents=True)
    # Longer than needed: the run is ended by SIGTERM, as a scheduler would.
    by_epoch = 'max_epochs' in Config.fromfile(args.config, import_custom_modules=False).train_cfg
    length = 'max_epochs' if by_epoch else 'max_iters'
    options = [
        f'train_cfg.{length}={2 * args.iterations}',
        'default_hooks.checkpoint.by_epoch=False',
        f'default_hooks.checkpoint.interval={max(args.iterations // 10, 1)}',
        'default_hooks.checkpoint.max_keep_ckpts=2',
        'default_hooks.logger.interval=10',
        *args.cfg_options,
    ]
    script = REPOSITORY / 'tools' / 'train.py'
    command = [sys.executable, str(script), args.config, '--work-dir', str(args.work_dir)]
    readings: list[Reading] = []
    # Workers die at these iterations, all after the warm-up.
    step = (args.iterations - args.warm_up) // (args.kill_workers + 1)
    executions = [args.warm_up + step * (i + 1) for i in range(args.kill_workers)]
    killed: list[int] = []
    with open(args.work_dir / 'train.log', 'w') as log:
        process = subprocess.Popen(
            [*command, '--cfg-options', *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
        )
        try:
            while process.poll() is None:
                done = finished_iterations(args.work_dir)
                reading = read_process(process.pid, done)
                if reading is not None and done > 0:
                    readings.append(reading)
                    if done >= args.iterations:
                        process.terminate()
                        process.wait(timeout=120)
                    elif executions and done >= executions[0] and reading.children:
                        executions.pop(0)
                        killed.append(reading.children[0])
                        os.kill(killed[-1], signal.SIGKILL)
                        print(f'killed data worker {killed[-1]} at iteration {done}', flush=True)
                time.sleep(args.seconds)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    with open(args.work_dir / 'readings.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, list(asdict(readings[0])) if readings else [])
        writer.writeheader()
        writer.writerows(asdict(reading) for reading in readings)
    print(
        f'{"iteration":>9} {"main MiB":>9} {"workers MiB":>11} {"private MiB":>11} '
        f'{"handles":>7} {"shared MiB":>10} children'
    )
    for reading in readings[:: max(len(readings) // 20, 1)]:
        print(
            f'{reading.iteration:9d} {reading.main_mib:9.1f} {reading.workers_mib:11.1f} '
            f'{reading.private_mib:11.1f} {reading.handles:7d} {reading.shared_mib:10.1f} '
            f'{len(reading.children)}'
        )
    findings = []
    if process.returncode != 128 + signal.SIGTERM:
        findings.append(f'training ended with status {process.returncode}; see {log.name}')
    if executions:
        findings.append(f'no worker could be killed at iterations {executions}: is num_workers 0?')
    alive = set(readings[-1].children) if readings else set()
    replaced = sum(pid not in alive for pid in killed)
    said = (args.work_dir / 'train.log').read_text().count('starting all workers anew')
    if said < len(killed):
        findings.append(f'{len(killed)} workers killed, but the log tells of {said} new starts')
    findings += judge(readings, warm_up=args.warm_up)
    print(f'{len(killed)} data workers killed, {replaced} replaced, {said} new starts in the log')
    print(*(['LEAK OR FAULT:', *findings] if findings else ['Flat: no leak found.']), sep='\n  ')
    return 1 if findings else 0


if __name__ == '__main__':
    sys.exit(main())
