"""Who may import whom: data moves one way through the rooms, and tests mirror them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import s3pt_mm

PACKAGE = Path(s3pt_mm.__file__).parent

# From the ground up; a room imports only rooms that stand before it in its own line.
MAY_IMPORT = {
    'common': (),
    'kernels': ('common',),
    'resume': ('common',),
    'hosts': ('common', 'resume'),
    'weights': ('common', 'hosts'),
    'data': ('common',),
    'toydrive': ('common', 'data'),
    'method': ('common', 'kernels'),
    'probes': ('common', 'data', 'method', 'weights'),
    'reports': ('common', 'data'),
    'segmentation': ('common', 'data', 'hosts', 'weights'),
    'detection': ('common', 'kernels', 'data', 'hosts', 'weights'),
    'cli': (
        *('common', 'resume', 'hosts', 'weights', 'data', 'toydrive', 'method', 'probes'),
        *('reports', 'segmentation', 'detection'),
    ),
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of this package in a file, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path}:{node.lineno}: one import style, absolute'
            for alias in node.names:
                yield node.lineno, f'{node.module}.{alias.name}'
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name


def test_every_folder_is_a_room_with_a_place():
    assert {path.parent.name for path in PACKAGE.glob('*/__init__.py')} == set(MAY_IMPORT)


def test_no_room_stands_on_one_above_it():
    above: set[str] = set()
    for room, below in MAY_IMPORT.items():
        assert set(below) <= above, f'{room} is listed before a room that it imports'
        above.add(room)


@pytest.mark.parametrize('room', MAY_IMPORT)
def test_imports_of_a_room(room: str):
    for path in (PACKAGE / room).rglob('*.py'):
        for line, name in imports(path):
            parts = name.split('.')
            if parts[0] == 'tools':
                raise AssertionError(f'{path}:{line}: the package does not reach for tools')
            if parts[0] == 's3pt_mm' and parts[1] in MAY_IMPORT and parts[1] != room:
                assert parts[1] in MAY_IMPORT[room], f'{path}:{line}: {room} imports {name}'


def test_no_file_is_longer_than_a_reader_likes():
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob('*.py')}
    assert not {str(path): length for path, length in lengths.items() if length > 300}


def without_a_twin(text: str) -> list[str]:
    """Tests that need real data, and in a plain clone skip without a twin on data made there."""
    found: list[str] = []
    if not re.search("real_frame|REAL_DATA|beside_the_checkout|'shared'", text):
        return found  # soon
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        words = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        paths = {ast.unparse(part.right) for part in ast.walk(node) if isinstance(part, ast.BinOp)}
        real = words & {'beside_the_checkout', 'REAL_DATA'} or paths & {"'shared'"}
        twin = any("'made'" in ast.unparse(decorator) for decorator in node.decorator_list)
        if 'real_frame' in {argument.arg for argument in node.args.args} or (real and not twin):
            found.append(node.name)
    return found


def test_what_needs_real_data_also_runs_on_data_made_here():
    """``one_frame`` has both, ``any_frame`` one of them; ``beside_the_checkout`` is for tests with
    a kind 'made'."""
    tests = Path(__file__).parent
    found = {
        f'{path.relative_to(tests)}: {name}'
        for path in tests.rglob('*.py')
        for name in without_a_twin(path.read_text())
    }
    ways = ('any_frame', 'beside_the_checkout', 'real_frame')
    assert found == {f'conftest.py: {name}' for name in ways}
    for bad in ('def test_a(real_frame): pass', "def test_b(): root / 'shared' / 'data'"):
        assert without_a_twin(bad)
