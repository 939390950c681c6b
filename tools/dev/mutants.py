"""Breaks important lines one at a time and asks the tests whether they notice.

python tools/dev/mutants.py [ROOM ...] [--minutes 20] [--seed 0] [--named]

Each fault runs only the tests that pass its line, quickest first, until one fails. A draw of
faults by ``--seed`` is tried until the time is up; what was tried stands in
``work_dirs/mutants/tried.jsonl``, and the same command goes on from there. ``--again`` tries the
survivors once more, after new tests. ``--named`` runs the faults of
``tools/dev/mutation/named.py`` and ends with an error if one survives. Nightly, not part of CI.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: E402
from rich.table import Table  # noqa: E402

from tools.dev.mutation.bench import Bench  # noqa: E402
from tools.dev.mutation.faults import Fault, faults_of  # noqa: E402
from tools.dev.mutation.named import NAMED  # noqa: E402

FOLDER = ROOT / 'work_dirs' / 'mutants'
_HOSTS = ('torch', 'hypothesis', 's3pt_mm.hosts.compat', 'mmpretrain.models')


@dataclass(frozen=True)
class Room:
    """Files to break and the tests that should notice."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    libraries: tuple[str, ...] = _HOSTS

    def files(self) -> list[str]:
        """Within the repository."""
        found = [path for name in self.sources for path in ROOT.glob(name)]
        return sorted(str(path.relative_to(ROOT)) for path in found)


_METHOD = 'tests/test_method/'
ROOMS = {
    'losses': Room(
        ('s3pt_mm/method/losses/*.py',),
        (
            _METHOD + 'test_losses',
            _METHOD + 'test_algorithms/test_methods.py',
            'tests/test_kernels',
        ),
    ),
    'clustering': Room(('s3pt_mm/method/clustering/*.py',), (_METHOD + 'test_clustering',)),
    'memory': Room(
        ('s3pt_mm/method/memory/*.py',),
        (_METHOD + 'test_memory', _METHOD + 'test_algorithms/test_methods.py'),
    ),
    'petr_loss': Room(
        ('s3pt_mm/detection/petr/petr_loss.py',),
        tuple(f'tests/test_detection/test_{name}.py' for name in ('petr_head', 'petr_golden')),
        (*_HOSTS, 'mmdet3d.models'),
    ),
    'resume': Room(
        ('s3pt_mm/resume/*.py',),
        ('tests/test_resume', 'tests/test_reliability/test_exact_resumption.py'),
    ),
}


def named(console: Console) -> int:
    """Try the named faults; 0 when each is noticed."""
    bench, table, left = Bench(ROOT, FOLDER / 'tree'), Table('fault', 'outcome', 's'), 0
    bench.warm(['torch', 'mmengine.runner', 'hypothesis'])
    for tests in sorted({one.tests for one in NAMED}):
        if bench.run(tests, 600) != 'survived':
            raise SystemExit(f'{tests} fail without any fault; see {bench.root}/pytest.log')
    for one in NAMED:
        started = time.monotonic()
        outcome = bench.try_fault(one.fault(bench.root), one.tests, 300)
        left += outcome != 'killed'
        table.add_row(one.name, outcome, f'{time.monotonic() - started:.0f}')
        console.print(f'{outcome}: {one.name}')
    console.print(table)
    return int(left > 0)


def tried(path: Path) -> dict[str, dict]:
    """Outcomes of earlier runs by fault; a last line that was cut off does not count."""
    found = {}
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry['key']] = entry
    return found


def tests_of(fault: Fault, reach: dict, root: Path) -> list[str]:
    """Tests that run the fault's line: those of the file's own name, then the quickest, for at
    most 30 s."""
    lines, own = reach['lines'].get(str(root / fault.path), {}), f'test_{Path(fault.path).stem}'
    tests = sorted(
        lines.get(str(fault.line), ()),
        key=lambda test: (own not in test.split('::')[0], reach['seconds'][test]),
    )
    total, chosen = 0.0, []
    for test in tests:
        total += reach['seconds'][test]
        if chosen and total > 30:
            break
        chosen.append(test)
    return chosen


def reach_of(bench: Bench, room: Room) -> dict:
    """Which test runs which line; kept for the next run while no file has changed."""
    files = room.files() + [
        str(path.relative_to(ROOT))
        for name in room.tests
        for path in sorted((ROOT / name).rglob('*.py') if (ROOT / name).is_dir() else [ROOT / name])
    ]
    digest = hashlib.sha256(b''.join((ROOT / name).read_bytes() for name in files)).hexdigest()
    kept = FOLDER / f'reach-{digest[:12]}.json'
    if not kept.exists():
        part = kept.with_suffix('.partial')
        part.write_text(json.dumps(bench.reach(room.tests, room.files())), encoding='utf-8')
        part.replace(kept)
    return json.loads(kept.read_text(encoding='utf-8'))


def attempt(room: Room, faults: list[Fault], until: float, log: Path, console: Console) -> None:
    """Try faults of one room until the time is up; each outcome becomes a line of ``log``."""
    bench = Bench(ROOT, FOLDER / 'tree')
    bench.warm(room.libraries)
    console.print(f'{len(faults)} faults; first the tests without one: {", ".join(room.tests)}')
    reach = reach_of(bench, room)
    columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, open(log, 'a', encoding='utf-8') as file:
        task = progress.add_task('faults', total=len(faults))
        for fault in faults:
            if time.monotonic() > until:
                break
            tests, started = tests_of(fault, reach, bench.root), time.monotonic()
            limit = 60 + 10 * sum(reach['seconds'][test] for test in tests)
            outcome = bench.try_fault(fault, tests, limit) if tests else 'unreached'
            seconds = round(time.monotonic() - started, 1)
            entry = {name: getattr(fault, name) for name in ('key', 'path', 'line')}
            entry |= dict(change=f'{fault.before} -> {fault.after}', outcome=outcome, s=seconds)
            file.write(json.dumps(entry) + '\n')
            file.flush()
            progress.advance(task)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 unless a named fault survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('rooms', nargs='*', metavar='ROOM', help=f'of {", ".join(ROOMS)}')
    parser.add_argument('--minutes', type=float, default=20, help='for all rooms together')
    parser.add_argument('--seed', type=int, default=0, help='of the draw')
    parser.add_argument('--again', action='store_true', help='try survivors once more')
    parser.add_argument('--named', action='store_true', help='only faults with a name')
    args = parser.parse_args(argv)
    console = Console()
    if unknown := set(args.rooms) - set(ROOMS):
        parser.error(f'no room {", ".join(sorted(unknown))}; there are {", ".join(ROOMS)}')
    if args.named:
        return named(console)
    FOLDER.mkdir(parents=True, exist_ok=True)
    log, rooms = FOLDER / 'tried.jsonl', args.rooms or list(ROOMS)
    started, share = time.monotonic(), 60 * args.minutes / len(rooms)
    scores, survivors = (
        Table('room', 'faults', 'tried', 'noticed', 'score'),
        Table('place', 'change'),
    )
    for number, name in enumerate(rooms, 1):
        faults = [fault for path in ROOMS[name].files() for fault in faults_of(ROOT, path)]
        random.Random(args.seed).shuffle(faults)
        known = tried(log)
        if args.again:
            todo = [f for f in faults if known.get(f.key, {}).get('outcome') in _MISSED]
        else:
            todo = [fault for fault in faults if fault.key not in known]
        if todo and time.monotonic() < started + number * share:
            attempt(ROOMS[name], todo, started + number * share, log, console)
        known = tried(log)
        outcomes = Counter(known[f.key]['outcome'] for f in faults if f.key in known)
        missed = sum(outcomes[word] for word in _MISSED)
        done = outcomes.total()
        score = f'{100 * (done - missed) / done:.0f} %' if done else '-'
        scores.add_row(name, str(len(faults)), str(done), str(done - missed), score)
        for fault in faults:
            if known.get(fault.key, {}).get('outcome') in _MISSED:
                what = f'{fault.before}\n-> {fault.after}'
                place = f'{fault.path.removeprefix("s3pt_mm/")}:{fault.line}'
                survivors.add_row(f'{place}\n{known[fault.key]["outcome"]}', what)
    console.print(survivors, scores)
    return 0


_MISSED = ('survived', 'unreached', 'broken')

if __name__ == '__main__':
    sys.exit(main())
