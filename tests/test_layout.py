"""Who may import whom: data moves one way through the rooms, and tests mirror them."""

from __future__ import annotations

import ast
import subprocess
import sys
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


@pytest.mark.slow
def test_types(tmp_path: Path):
    """mypy over the folders that pyproject.toml names, as in `make lint`."""
    command = [sys.executable, '-m', 'mypy', '--cache-dir', str(tmp_path)]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
