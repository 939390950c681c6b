"""Trains a config while killing it at random moments; the weights must not notice.

    python tools/dev/chaos.py configs/toydrive/s3pt_vitt16.py --kills 20 \
        --work-dir work_dirs/chaos \
        --cfg-options train_dataloader.batch_size=8 train_cfg.max_epochs=3

One run is left alone. Another is launched, killed with SIGKILL (also while it writes a checkpoint)
and resumed, --kills times, then finished. Both final checkpoints are compared bit for bit. Exit
status 0: equal. Both runs save every iteration (or every --save-every).

With --signal TERM the run is asked to leave, as schedulers do: it must save and end with status 143
(a run that has not begun to train just ends), and --resume goes on in the middle of everything.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from s3pt_mm.hosts import compat  # noqa: E402
from tools.dev.chaos_kills import torment  # noqa: E402
from tools.dev.compare_checkpoints import compare_checkpoints  # noqa: E402


class Launch:
    """``tools/train.py`` in a process group of its own, so that its workers die with it."""

    def __init__(self, command: list[str], log: Path, *, polite: bool = False) -> None:
        self._polite = polite
        with open(log, 'ab') as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGTERM to the process, if polite; then SIGKILL to the group."""
        if self._polite and self._process.poll() is None:
            self._process.terminate()
            status = self._process.wait(timeout=300)
            if status not in (128 + signal.SIGTERM, -signal.SIGTERM):
                raise RuntimeError(f'SIGTERM made it end with status {status}, not 143.')
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--signal', choices=['KILL', 'TERM'], default='KILL')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--save-every', type=int, default=1, metavar='ITERATIONS')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/chaos'))
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> int:
    """Runs both and compares. Returns the exit status."""
    args = parse_args()
    compat.apply()
    shutil.rmtree(args.work_dir, ignore_errors=True)
    args.work_dir.mkdir(parents=True)

    def command(name: str, *more: str) -> list[str]:
        options = [
            'default_hooks.checkpoint.by_epoch=False',
            f'default_hooks.checkpoint.interval={args.save_every}',
            'default_hooks.checkpoint.max_keep_ckpts=2',
            *args.cfg_options,
        ]
        folder = str((args.work_dir / name).resolve())
        script = str(REPOSITORY / 'tools' / 'train.py')
        config = str(Path(args.config).resolve())
        return [
            sys.executable,
            script,
            config,
            '--work-dir',
            folder,
            *more,
            '--cfg-options',
            *options,
        ]

    def finish(name: str, *more: str) -> Path:
        log = args.work_dir / f'{name}.log'
        process = Launch(command(name, *more), log)
        try:
            while process.poll() is None:
                time.sleep(0.05)
        finally:
            process.kill()
        if process.poll() != 0:
            raise SystemExit(f'{name} ended with status {process.poll()}; see {log}')
        return Path((args.work_dir / name / 'last_checkpoint').read_text())

    started = time.monotonic()
    straight = finish('straight')
    print(f'uninterrupted: {straight.name} after {time.monotonic() - started:.0f} s', flush=True)
    folder, log = args.work_dir / 'chaos', args.work_dir / 'chaos.log'
    hits = 0

    def launch() -> Launch:
        return Launch(command('chaos', '--resume'), log, polite=args.signal == 'TERM')

    for number, kill in enumerate(torment(launch, folder, kills=args.kills, seed=args.seed), 1):
        hits += kill.caught_saving
        print(
            f'kill {number:3d} while {kill.moment:8s} after {kill.seconds:6.2f} s, {kill.saves} '
            f'saves, '
            f'newest {kill.newest}{", half-written file left" if kill.caught_saving else ""}',
            flush=True,
        )
    resumed = finish('chaos', '--resume')
    differences = compare_checkpoints(straight, resumed)
    print(
        f'{args.kills} x SIG{args.signal}, {hits} of them left a half-written checkpoint; final '
        f'{resumed.name}'
    )
    if differences:
        print('NOT EQUAL:', *differences, sep='\n  ')
        return 1
    print(
        'Equal to the uninterrupted run, bit for bit: weights, buffers, optimiser, schedulers, '
        'random states, log.'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
