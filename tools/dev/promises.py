"""Run the promises of docs/reliability.md and print, or write, what each gave.

python tools/dev/promises.py [WORD ...] [--write] [--slow]

Each row of the table holds a promise and, in its second column, the pytest command that shows it.
``--write`` puts date and outcome into the third column, row by row, so that a run that is stopped
has written what it found; what was measured by hand stays behind it. Without ``--slow`` a row whose
tests are all slow stays as it is.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from s3pt_mm.common.files import write_text  # noqa: E402

PAGE = ROOT / 'docs' / 'reliability.md'
_STAMP = re.compile(r'\d{4}-\d\d-\d\d: [^;]*; ')


def rows(text: str) -> list[tuple[str, list[str], str]]:
    """The table's rows: (whole line, pytest arguments, what was measured)."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip('|').split(' | ')]
        commands = re.findall(r'`pytest ([^`]+)`', cells[1]) if len(cells) == 3 else []
        if line.startswith('| ') and commands:
            found.append((line, commands, cells[2]))
    return found


def outcome(arguments: str, *, slow: bool) -> tuple[bool, str]:
    """Run pytest; whether all passed, and its own last line ('' where all tests are slow)."""
    command = [sys.executable, '-m', 'pytest', '-q', *shlex.split(arguments)]
    if not slow and ' -m' not in arguments:
        command += ['-m', 'not slow']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 5 and not slow:
        return True, ''
    lines = [line for line in done.stdout.splitlines() if ' in ' in line and line[0].isdigit()]
    return done.returncode == 0, lines[-1] if lines else f'pytest ended with {done.returncode}'


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 when every promise held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('words', nargs='*', help='only rows that hold all of these words')
    parser.add_argument('--write', action='store_true', help='put the outcomes into the page')
    parser.add_argument('--slow', action='store_true', help='slow tests too')
    args = parser.parse_args(argv)
    text, kept = PAGE.read_text(encoding='utf-8'), True
    for line, commands, measured in rows(text):
        if not all(word in line for word in args.words):
            continue
        results = [outcome(command, slow=args.slow) for command in commands]
        kept &= all(passed for passed, _ in results)
        words = ', '.join(words for _, words in results if words)
        said = f'{time.strftime("%Y-%m-%d")}: {words or "slow tests, not run"}; '
        print(f'{line.split(" | ")[0]}\n  {said}', flush=True)
        if args.write and words:
            # Read anew: the page may have been edited while the tests ran.
            text, new = PAGE.read_text(encoding='utf-8'), said + _STAMP.sub('', measured)
            write_text(PAGE, text.replace(line, line.replace(measured, new)))
    return 0 if kept else 1


if __name__ == '__main__':
    sys.exit(main())
