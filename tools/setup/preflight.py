"""What must be true before anything is downloaded; each failure is one line with its remedy."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

#: Bytes that the set-up puts under each place, measured on CPython 3.11 (see
#: docs/installation.md), rounded up.
ENVIRONMENT_BYTES = 7_500_000_000
TEMPORARY_BYTES = 4_500_000_000
CACHE_BYTES = 100_000_000


def check_python(version: tuple[int, ...] = tuple(sys.version_info)) -> list[str]:
    """Accept CPython 3.10, 3.11 and 3.12."""
    if (3, 10) <= version[:2] <= (3, 12):
        return []
    return [
        f'Python 3.10, 3.11 or 3.12 is needed and this is {version[0]}.{version[1]}: '
        'set PYTHON=/path/to/python3.11'
    ]


def check_platform(system: str | None = None, machine: str | None = None) -> list[str]:
    """Accept x86-64 Linux, for which the pinned wheels exist."""
    system, machine = system or platform.system(), machine or platform.machine()
    if (system, machine) == ('Linux', 'x86_64'):
        return []
    return [
        f'the pinned wheels are for Linux on x86-64 and this is {system} on {machine}: '
        'install by hand, see docs/installation.md'
    ]


def check_tools(path: str | None = None) -> list[str]:
    """Find the programs that compile mmcv."""
    remedy = 'install a compiler (Debian, Ubuntu: apt-get install build-essential)'
    compiler = os.environ.get('S3PT_CXX', 'g++')
    return [
        f'{program} was not found: {remedy}'
        for program in (compiler, 'make')
        if shutil.which(program, path=path) is None
    ]


def check_headers(include: str | None = None) -> list[str]:
    """Find ``Python.h``, without which mmcv's operators cannot be compiled."""
    include = include or sysconfig.get_paths()['include']
    if (Path(include) / 'Python.h').is_file():
        return []
    package = f'python{sys.version_info[0]}.{sys.version_info[1]}-dev'
    return [
        f'Python.h is not in {include}: install the headers (Debian, Ubuntu: {package}) or set '
        f'PYTHON to a '
        'Python that has them'
    ]


def check_venv() -> list[str]:
    """Find the standard library's ``venv`` and ``ensurepip``, which some distributions split
    off."""
    missing = [name for name in ('venv', 'ensurepip') if importlib.util.find_spec(name) is None]
    package = f'python{sys.version_info[0]}.{sys.version_info[1]}-venv'
    return [
        f'the module {name} is missing in {sys.executable}: install it (Debian, Ubuntu: {package})'
        for name in missing
    ]


def _existing(path: Path) -> Path:
    """The nearest parent that exists, because free space can be asked only there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_disk(needs: dict[Path, int]) -> list[str]:
    """Compare free space with what is needed, added up for places on the same file system.

    Args:
        needs: bytes by place; a place need not exist yet.
    """
    by_device: dict[int, tuple[Path, int]] = {}
    for place, size in needs.items():
        parent = _existing(place)
        device = parent.stat().st_dev
        first, total = by_device.get(device, (parent, 0))
        by_device[device] = (first, total + size)
    problems = []
    for place, size in by_device.values():
        free = shutil.disk_usage(place).free
        if free < size:
            problems.append(
                f'{size / 1e9:.1f} GB of free disk are needed under {place} and {free / 1e9:.1f} '
                f'GB are '
                'there: make room, or set VENV (environment), TMPDIR (downloads) or S3PT_MM_CACHE'
            )
    return problems


def check_machine() -> list[str]:
    """Python, platform, compiler, headers and venv: one line a problem, empty if all is well."""
    return [*check_python(), *check_platform(), *check_tools(), *check_headers(), *check_venv()]


def check_space(environment: Path, temporary: Path, cache: Path) -> list[str]:
    """Free disk for an environment from nothing.

    Args:
        environment: where the virtual environment will lie.
        temporary: where pip unpacks.
        cache: where mmcv is compiled and kept.
    """
    return check_disk(
        {environment: ENVIRONMENT_BYTES, temporary: TEMPORARY_BYTES, cache: CACHE_BYTES}
    )
