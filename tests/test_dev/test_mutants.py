"""The mutation run: which faults it makes, how it judges tests, and that named faults still fit."""

import ast
import json
import subprocess
import sys

import pytest

from tools.dev import mutants
from tools.dev.mutation.faults import faults_of
from tools.dev.mutation.named import NAMED

CODE = '''"""A file."""
import torch
import warnings

LIMIT = 3

@torch.no_grad()
def decorated(known, other, *, dim: int = 0):
    known &= ~other
    if known.any():
        warnings.warn('some')
        raise ValueError(f'{1 + 1}')
    return (known & other).sum(dim=dim)
'''


def test_faults_of_decorated_functions_operators_and_statements_but_not_of_words(tmp_path):
    (tmp_path / 'a.py').write_text(CODE)
    faults = faults_of(tmp_path, 'a.py')
    changes = {(fault.line, fault.before, fault.after) for fault in faults}
    assert {
        (5, '3', '4'),
        (9, 'known &= ~other', 'pass'),
        (9, '~other', 'other'),
        (10, 'if known.any():', 'if False:'),
        (13, '(known & other)', '(known | other)'),
        (13, '(known & other).sum(dim=dim)', '(known & other).sum()'),
    } <= changes
    assert {line for line, _, _ in changes} == {5, 8, 9, 10, 12, 13}
    assert [after for line, _, after in changes if line == 12] == ['pass']
    assert len({fault.key for fault in faults}) == len(faults)
    for fault in faults:
        ast.parse(fault.source())
        assert fault.source() != CODE


@pytest.mark.parametrize('one', NAMED, ids=lambda one: one.name)
def test_named_faults_fit_the_code(one):
    fault = one.fault(mutants.ROOT)
    ast.parse(fault.source())
    assert (mutants.ROOT / one.tests[0]).exists()


def test_rooms_name_files_and_tests_that_exist():
    for name, room in mutants.ROOMS.items():
        assert room.files(), name
        assert all((mutants.ROOT / test).exists() for test in room.tests)


SCRIPT = """
import json, sys
from pathlib import Path
from tools.dev.mutation.bench import Bench
from tools.dev.mutation.faults import faults_of
from tools.dev.mutants import tests_of
checkout, root = map(Path, sys.argv[1:])
bench = Bench(checkout, root)
reach = bench.reach(['tests'], ['half.py'])
said = {}
for fault in faults_of(checkout, 'half.py'):
    tests = tests_of(fault, reach, root)
    if fault.after in ('x * 0.5', 'x / 2', 'x += 7', 'x / x'):
        seconds = 5 if fault.after == 'x += 7' else 100
        said[fault.after] = [bench.try_fault(fault, tests, seconds) if tests else None, tests]
print(json.dumps(said))
assert (root / 'half.py').read_text() == (checkout / 'half.py').read_text()
"""


def test_a_fault_is_killed_survives_hangs_or_is_not_reached(tmp_path):
    """On a small checkout; the command's own process stays as it was."""
    checkout = tmp_path / 'checkout'
    (checkout / 'tests').mkdir(parents=True)
    (checkout / 'half.py').write_text(
        'def half(x):\n    return x // 2\n\n\ndef twice(x):\n    return x / 0.5\n\n\n'
        'def down(x):\n    while x != 0:\n        x -= 7\n'
        '    return x\n\n\ndef unused(x):\n    return x * x\n'
    )
    (checkout / 'tests' / 'test_half.py').write_text(
        'import half\n\n\ndef test_half():\n    assert half.half(4) == 2\n\n\n'
        'def test_twice():\n    assert half.twice(4) == 8\n\n\n'
        'def test_down():\n    assert half.down(7) == 0\n'
    )
    subprocess.run(['git', 'init', '-q', checkout], check=True)
    command = [sys.executable, '-c', SCRIPT, checkout, tmp_path / 'tree']
    done = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said['x * 0.5'] == ['killed', ['tests/test_half.py::test_twice']]
    assert said['x / 2'] == ['survived', ['tests/test_half.py::test_half']]
    assert said['x += 7'] == ['timeout', ['tests/test_half.py::test_down']]
    assert said['x / x'] == [None, []]


def test_a_line_cut_off_in_the_log_is_tried_again(tmp_path):
    log = tmp_path / 'tried.jsonl'
    log.write_text('{"key": "a", "outcome": "killed"}\n{"key": "b", "outc')
    assert list(mutants.tried(log)) == ['a']
    assert mutants.tried(tmp_path / 'absent') == {}


def test_a_package_that_was_read_elsewhere_is_refused(repository, tmp_path):
    """Its files would be the checkout's, not the copy's: every fault would survive."""
    code = (
        'import sys; from pathlib import Path; from tools.dev import mutants\n'
        'assert "s3pt_mm" not in sys.modules, "the tool itself must not bring it in"\n'
        'import s3pt_mm; bench = object.__new__(mutants.Bench); bench.root = Path(sys.argv[1])\n'
        'bench.warm([])'
    )
    command = [sys.executable, '-c', code, str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert 'where nothing is broken' in done.stderr, done.stderr
