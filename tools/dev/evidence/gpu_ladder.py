"""The ladder on one GPU in minutes: frames in its memory, several runs side by side.

    python tools/dev/evidence/gpu_ladder.py --pack camvid=FOLDER pandaset=FOLDER --data DATA
    python tools/dev/evidence/gpu_ladder.py --data DATA --sources camvid pandaset --out OUT

The first line packs data sets into one file each. The second measures how many steps the time
allows, lets CrIBo choose a recipe on a seed of its own, then trains every rung for equally many
images, seed by seed, all rungs on all sources together, and probes each run on each source. A
finished run is one line of ``<out>/ladder.jsonl`` at once; ``page.md`` beside it is the table.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import queue
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The libraries take ten seconds to import: workers do it while this process does, see `_libraries`.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
if TYPE_CHECKING:
    from tools.dev.evidence.gpu_runs import Runs

HELD_OUT = 100
_CHOICE = 0.25  # of the time goes into choosing the recipe
_MARGIN = 0.85  # of the time that is left is planned with
_FEW = 100  # steps: below that rather fewer seeds


@dataclass
class Job:
    """One run.

    Attributes:
        rung: A name of ``gpu_runs.RUNGS``, or the bound.
        seed: Of everything.
        recipe: A name of ``gpu_runs.RECIPES``.
        steps: Of the optimiser.
        stage: 'rate' measures only, 'recipe' chooses, 'ladder' is the table.
    """

    rung: str
    seed: int
    recipe: str
    steps: int
    stage: str = 'ladder'
    found: dict[str, Any] = field(default_factory=dict)


def main(argv: list[str] | None = None) -> int:
    """Pack, or run the ladder; 1 if a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, required=True, help='folder of packed data sets')
    parser.add_argument('--pack', nargs='+', metavar='NAME=FOLDER', default=[])
    parser.add_argument('--most', type=int, help='pre-training images of a packed data set')
    parser.add_argument('--height', type=int, default=360, help='of packed frames, pixels')
    parser.add_argument('--sources', nargs='+', default=['camvid', 'pandaset'])
    parser.add_argument('--repeats', nargs='+', type=int, help='times an epoch; default: balanced')
    parser.add_argument('--out', type=Path, default=Path('.'))
    parser.add_argument('--minutes', type=float, default=4.0, help='from the start of the script')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--workers', type=int, default=8, help='runs side by side')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--rungs', nargs='+', help='some of them only')
    parser.add_argument('--recipe', help='a name of gpu_runs.RECIPES, instead of choosing one')
    parser.add_argument('--steps', type=int, help='of each run, instead of what time allows')
    parser.add_argument('--arch', default='tiny', help='a name of gpu_runs.ARCHS')
    parser.add_argument('--size', type=int, default=192, help='pixels of a view')
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--crops', type=int, default=700, help='of training images, about')
    args = parser.parse_args(argv)
    if args.pack:
        _libraries()
        from tools.dev.evidence.data import SOURCES
        from tools.dev.evidence.packed import pack

        for name, _, folder in (word.partition('=') for word in args.pack):
            source = SOURCES[name](Path(folder), args.data / 'cache', (None, None))
            size = pack(source, args.data / f'{name}.npz', most=args.most, height=args.height)
            print(f'{args.data / name}.npz: {size / 2**20:.1f} MiB')
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    ladder = Ladder(args)
    try:
        return ladder.run()
    finally:
        ladder.close()


class Ladder:
    """All runs of one call."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.start = args, time.monotonic()
        self.deadline = self.start + 60 * args.minutes
        self.failed, self.rate, self.probe = 0, 1.0, 0.0
        self.controls: dict[int, Any] = {}
        context = multiprocessing.get_context('spawn')
        self.jobs, self.answers = context.Queue(), context.Queue()
        words = (args, self.jobs, self.answers)
        self.workers = [
            context.Process(target=_work, args=words, daemon=True) for _ in range(args.workers)
        ]
        for worker in self.workers:
            worker.start()

    def say(self, text: str) -> None:
        """A line with the seconds since the start."""
        print(f'{time.monotonic() - self.start:6.1f} s  {text}', flush=True)

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def run(self) -> int:
        """Rate, recipe, ladder, what time is left for."""
        _libraries()
        from tools.dev.evidence import gpu_runs
        from tools.dev.evidence.packed import has_depth
        from tools.dev.evidence.page import write_page

        args, recipe = self.args, self.args.recipe
        depth = any(has_depth(args.data / f'{name}.npz') for name in args.sources)
        rungs = [name for name in gpu_runs.RUNGS if depth or 'depth' not in name]
        rungs = [name for name in rungs if name in (args.rungs or rungs)]
        bounds = [gpu_runs.bound_of(name) for name in args.sources]
        if not args.steps:
            self._measure(Job(rungs[-1], HELD_OUT, gpu_runs.SHORT, 20, 'rate'))
        if not recipe:
            recipe = self._choose(list(gpu_runs.RECIPES)) or gpu_runs.SHORT
        ladder: list[Job] = []
        for seeds in (args.seeds[:count] for count in range(len(args.seeds), 0, -1)):
            names = (gpu_runs.CONTROLS, *rungs, *bounds)
            ladder = [Job(rung, seed, recipe, 0) for seed in seeds for rung in names]
            steps = args.steps or self._steps(len(ladder), self.left())
            if args.steps or steps >= _FEW:
                break
        more = [Job(r, seed, recipe, 0) for seed in seeds for r in gpu_runs.MORE if depth]
        for job in (*ladder, *more):
            job.steps = max(steps, 1)
        self.say(f'{len(ladder)} runs of {steps} steps, recipe {recipe!r}')
        self.finish([*ladder, *more])
        write_page(self.args.out)
        return min(self.failed, 1)

    def _measure(self, job: Job) -> None:
        """What a step and a probe take while every worker does the same."""
        found = [done.found for done in self.finish([job] * self.args.workers)]
        if not found:
            raise SystemExit('ladder: no worker ended its first steps')
        self.rate = sum(one['steps_per_second'] for one in found) / len(found)
        self.probe = max(one['probe_seconds'] for one in found)
        self.say(f'{self.rate:.2f} steps a second and worker, {self.probe:.1f} s a probe')

    def _steps(self, jobs: int, seconds: float) -> int:
        """Steps of each of so many runs that fit, with their probes."""
        rounds = math.ceil(jobs / self.args.workers)
        return int((_MARGIN * seconds / rounds - self.probe) * self.rate)

    def _choose(self, recipes: list[str]) -> str | None:
        """The recipe by which CrIBo gains most on a seed of its own; None without time for it."""
        from tools.dev.evidence.page import mean_gain

        jobs = [Job('CrIBo', HELD_OUT, name, 0, 'recipe') for name in recipes]
        jobs.insert(0, Job('controls', HELD_OUT, recipes[0], 0, 'recipe'))
        steps = self.args.steps or self._steps(len(jobs), _CHOICE * self.left())
        if not self.args.steps and steps < _FEW:
            self.say(f'no time to choose a recipe: {steps} steps each')
            return None
        for job in jobs:
            job.steps = steps
        gains = {
            job.recipe: mean_gain(job.found['probes'])
            for job in self.finish(jobs, time.monotonic() + 2 * _CHOICE * self.left())
            if job.rung != 'controls' and job.seed in self.controls
        }
        if not gains:
            self.say('no run of CrIBo ended in time to choose a recipe')
            return None
        best = max(gains, key=gains.__getitem__)
        choice = dict(chosen=best, gains=gains, steps=steps, sources=self.args.sources)
        self.note(dict(stage='choice', **choice))
        return best

    def finish(self, jobs: list[Job], until: float | None = None) -> list[Job]:
        """Run jobs in order until all are done or time is over; those that ended well.

        A run's figures are noted beside the controls of its seed, so it may have to wait for them.
        """
        from tools.dev.evidence.page import beside

        done, waiting = [], []
        for job in self._answers(jobs, until or self.deadline):
            if 'error' in job.found:
                self.failed += 1
                self.note(self._line(job))
                continue
            if job.rung == 'controls':
                self.controls[job.seed] = job.found['probes']
            elif job.stage != 'rate':
                waiting.append(job)
            if job.stage == jobs[0].stage:
                done.append(job)
            for ready in [w for w in waiting if w.seed in self.controls]:
                waiting.remove(ready)
                ready.found['probes'] = beside(ready.found['probes'], self.controls[ready.seed])
                self.note(self._line(ready))
        return done

    def _line(self, job: Job) -> dict[str, Any]:
        keys = ('rung', 'seed', 'recipe', 'steps', 'stage')
        line = {key: getattr(job, key) for key in keys}
        return dict(line, images=job.steps * self.args.batch, **job.found)

    def _answers(self, jobs: list[Job], until: float) -> Iterator[Job]:
        for job in jobs:
            self.jobs.put(job)
        waiting = len(jobs)
        while waiting and time.monotonic() < until and any(w.is_alive() for w in self.workers):
            try:
                job = self.answers.get(timeout=0.5)
            except queue.Empty:
                continue
            waiting -= job.stage == jobs[0].stage  # not one that an earlier stage left behind
            yield job
        if waiting:
            self.say(f'{waiting} runs not finished')

    def note(self, line: dict[str, Any]) -> None:
        """Append one line to ``ladder.jsonl`` and renew the page's files."""
        from tools.dev.evidence.page import write_lines

        line['at'] = round(time.monotonic() - self.start, 1)
        with open(self.args.out / 'ladder.jsonl', 'a') as file:
            file.write(json.dumps(line) + '\n')
        write_lines([line], self.args.out)
        words = {k: v for k, v in line.items() if k not in ('probes', 'at', 'health')}
        if 'probes' in line:
            words['gains'] = {
                f'{name} {head}': f'{found["mIoU"]:.1f} ({found["gain"]:+.1f})'
                for name, heads in line['probes'].items()
                for head, found in heads.items()
            }
        self.say(json.dumps(words))

    def close(self) -> None:
        """End the workers, whatever they do."""
        for worker in self.workers:
            worker.kill()


def _libraries() -> None:
    """What the hosts need before anything else is imported, and no line a parameter."""
    from s3pt_mm.hosts import compat

    compat.apply()
    from mmengine.logging import MMLogger

    MMLogger.get_instance('ladder', log_level='WARNING')


def _work(args: argparse.Namespace, jobs: Any, answers: Any) -> None:
    """A worker: reads the data, then runs what the queue has."""
    _libraries()
    import cv2
    import torch

    from tools.dev.evidence.gpu_runs import Runs, Settings

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    settings = Settings(args.arch, args.size, args.batch, args.device, args.crops)
    runs = Runs(settings, args.data, args.sources, args.repeats)
    for job in iter(jobs.get, None):
        answers.put(_done(runs, job))


def _done(runs: Runs, job: Job) -> Job:
    try:
        warm = 5 if job.stage == 'rate' else 0
        job.found = runs.one(job.rung, job.seed, job.recipe, job.steps, warm=warm)
    except Exception as error:
        place = traceback.format_exc().splitlines()[-3:]
        job.found = dict(error=f'{type(error).__name__}: {error}'[:500], place=place)
    return job


if __name__ == '__main__':
    sys.exit(main())
