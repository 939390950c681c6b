"""Modules of extras: a missing one is named with its remedy; nothing else is needed unnamed."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from s3pt_mm.common.errors import explain
from s3pt_mm.common.extras import EXTRAS, missing_extra

#: Triton comes with torch's CUDA builds, and its kernels say so themselves.
ELSEWHERE = {'triton'}


def requirements(repository: Path, name: str) -> Iterator[Requirement]:
    """Lines of a file of requirements/."""
    for line in (repository / 'requirements' / f'{name}.txt').read_text().splitlines():
        if line.strip() and not line.startswith('#'):
            yield Requirement(line)


def closure(names: Iterator[Requirement]) -> set[str]:
    """Distributions that these bring, in this environment."""
    found: set[str] = set()
    waiting = [requirement.name for requirement in names]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            more = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        for line in more:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({'extra': ''}):
                waiting.append(needed.name)
    return found


def imported(package: Path) -> set[str]:
    """Top-level names of every absolute import below a folder."""
    names = set()
    for path in package.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition('.')[0])
    return names - set(sys.stdlib_module_names) - {'s3pt_mm'}


def test_each_import_comes_with_the_run_time_or_a_named_extra(repository) -> None:
    """tqdm came with other extras alone, and s3pt-embed ended in a traceback without them."""
    brought = closure(requirements(repository, 'runtime'))
    named = {module for modules in EXTRAS.values() for module in modules}
    distributions = importlib.metadata.packages_distributions()
    for module in imported(repository / 's3pt_mm') - named - ELSEWHERE:
        owners = {canonicalize_name(name) for name in distributions.get(module, ())}
        # mmengine asks for opencv-python; the lock takes the same files without a window system.
        assert owners & brought or module == 'cv2', f'{module}: in no extra, not in runtime'


@pytest.mark.parametrize('extra', EXTRAS)
def test_extras_bring_their_modules(repository, extra) -> None:
    brought = closure(requirements(repository, extra))
    distributions = importlib.metadata.packages_distributions()
    for module in EXTRAS[extra]:
        if module in distributions:
            owners = {canonicalize_name(name) for name in distributions[module]}
            assert owners & brought, f'{module} comes from {owners}, not with [{extra}]'


def test_the_cause_is_found_behind_other_errors() -> None:
    try:
        try:
            raise ModuleNotFoundError("No module named 'mmseg'", name='mmseg.apis')
        except ImportError:
            raise ImportError('Failed to import custom modules from sixty lines')  # noqa: B904
    except ImportError as error:
        assert explain(error) == 'mmseg is not installed: pip install "s3pt_mm[segmentation]"'
    assert missing_extra(ModuleNotFoundError(name='mine')) is None


def test_a_command_without_its_extra_ends_in_one_line(tmp_path) -> None:
    code = """
import sys
sys.modules['trimesh'] = None
from s3pt_mm.cli import entry
sys.argv = ['s3pt-toydrive', '--help']
sys.exit(entry.create_toydrive())
"""
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert re.fullmatch(r'error: trimesh .*"s3pt_mm\[toydrive\]"\n', done.stderr), done.stderr
