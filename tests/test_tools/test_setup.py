"""The set-up's checks, its build recipe and its pins."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture(scope='module')
def setup_folder(repository_root: Path) -> Path:
    """Folder of the set-up scripts."""
    return repository_root / 'tools' / 'setup'


@pytest.fixture(scope='module')
def repository_root() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[2]


def _load(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'setup_{name}', folder / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def preflight(setup_folder: Path) -> ModuleType:
    """The checks."""
    return _load(setup_folder, 'preflight')


@pytest.fixture(scope='module')
def build_mmcv(setup_folder: Path) -> ModuleType:
    """The build."""
    return _load(setup_folder, 'build_mmcv')


def test_this_machine_passes(preflight) -> None:
    """The environment that runs the tests was made by these checks."""
    assert preflight.check_python() == [] and preflight.check_platform() == []


@pytest.mark.parametrize('version', [(3, 9, 18), (3, 13, 0)])
def test_wrong_python(preflight, version) -> None:
    """One line with the accepted range."""
    (line,) = preflight.check_python(version)
    assert '3.10, 3.11 or 3.12' in line and '\n' not in line


def test_missing_compiler_headers_platform(preflight, tmp_path, monkeypatch) -> None:
    """Each missing thing is one line with its remedy."""
    monkeypatch.delenv('S3PT_CXX', raising=False)
    lines = preflight.check_tools(path=str(tmp_path))
    assert [line.split()[0] for line in lines] == ['g++', 'make']
    (line,) = preflight.check_headers(str(tmp_path))
    assert 'Python.h' in line and '-dev' in line and '\n' not in line
    assert 'arm64' in preflight.check_platform('Darwin', 'arm64')[0]


def test_disk_adds_up_on_one_file_system(preflight, tmp_path, monkeypatch) -> None:
    """Says how much is needed, added over places on one file system, and how much is there."""
    usage = type('Usage', (), {'free': 6_000_000_000})
    monkeypatch.setattr(preflight.shutil, 'disk_usage', lambda path: usage)
    needs = {tmp_path / 'a' / 'venv': 4_000_000_000, tmp_path / 'b': 3_000_000_000}
    (line,) = preflight.check_disk(needs)
    assert '7.0 GB' in line and '6.0 GB' in line and '\n' not in line
    assert preflight.check_disk({tmp_path / 'a': 4_000_000_000}) == []


def test_shell_names_a_wrong_python(repository_root, tmp_path) -> None:
    """The shell part refuses before any of our Python runs."""
    fake = tmp_path / 'python3.7'
    fake.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.7.1" && exit 0\nexit 1\n')
    fake.chmod(0o755)
    done = subprocess.run(
        [repository_root / 'tools' / 'setup_env.sh', str(tmp_path / 'venv')],
        env={'PYTHON': str(fake), 'PATH': '/usr/bin:/bin'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert 'Python 3.7.1' in done.stderr and not (tmp_path / 'venv').exists()


def test_key_follows_the_pins_and_nothing_else(repository_root, tmp_path) -> None:
    """Another pin is another environment; another README is not."""
    import shutil

    for name in ('requirements', 'tools'):
        shutil.copytree(
            repository_root / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__')
        )

    def key() -> str:
        command = [tmp_path / 'tools' / 'setup_env.sh', '--print-key']
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    first = key()
    (tmp_path / 'README.md').write_text('x')
    assert key() == first and re.fullmatch('[0-9a-f]{16}', first)
    with (tmp_path / 'requirements' / 'lock.txt').open('a') as file:
        file.write('another==1.0\n')
    assert key() != first


def test_jobs_respect_memory(build_mmcv) -> None:
    """A compiler a core, if memory allows; at least one."""
    assert build_mmcv.jobs(8, 64_000_000_000) == 8
    assert build_mmcv.jobs(8, 4_000_000_000) == 2
    assert build_mmcv.jobs(8, 100_000_000) == 1


def test_progress_counts_ninjas_files(build_mmcv, tmp_path, capsys) -> None:
    """Every line reaches the log; the counter shows first, tenth and last file."""
    lines = [f'  [{i}/12] g++ file{i}.cpp\n' for i in range(1, 13)] + ['done\n']
    build_mmcv.report_progress(lines, tmp_path / 'log', terminal=False)
    shown = capsys.readouterr().out
    assert [int(n) for n in re.findall(r'(\d+)/12 files', shown)] == [1, 10, 12]
    assert (tmp_path / 'log').read_text() == ''.join(lines)


@pytest.mark.parametrize('pch', ['good', 'invalid', 'absent'])
def test_compiler_wrapper_falls_back(setup_folder, tmp_path, pch) -> None:
    """C++20 whatever -std comes before; a broken precompiled header costs no build."""
    import shutil

    if shutil.which('g++') is None:
        pytest.skip('no g++')
    header, source = tmp_path / 'pch.h', tmp_path / 'a.cpp'
    header.write_text('#include <vector>\n')
    source.write_text(
        '#include <vector>\nstatic_assert(__cplusplus > 201703L);\nint f(){return 1;}\n'
    )
    flags = ['-std=c++20', '-O2', '-g0', '-fPIC']
    if pch == 'good':
        command = ['g++', *flags, '-x', 'c++-header', header, '-o', f'{header}.gch']
        subprocess.run(command, check=True)
    elif pch == 'invalid':
        (tmp_path / 'pch.h.gch').write_bytes(b'gpch, but not really' * 100)
    done = subprocess.run(
        [
            setup_folder / 'g++-cxx20.sh',
            '-fPIC',
            '-c',
            source,
            '-o',
            tmp_path / 'a.o',
            '-std=c++17',
        ],
        env={'PATH': '/usr/bin:/bin', 'S3PT_PCH': str(header)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'a.o').stat().st_size > 0
    assert not list(tmp_path.glob('*.log'))
    assert (tmp_path / 'pch.h.gch').exists() == (pch == 'good')


def _lock(root: Path) -> list[Requirement]:
    lines = (root / 'requirements' / 'lock.txt').read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith('#')]


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12'])
def test_lock_pins_every_requirement_once(repository_root, python) -> None:
    """Each range of requirements/ has one exact pin inside it, on every accepted Python."""
    environment = {'python_version': python}
    pins: dict[str, str] = {}
    for requirement in _lock(repository_root):
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        (specifier,) = requirement.specifier
        assert specifier.operator == '==', requirement
        name = canonicalize_name(requirement.name)
        assert name not in pins, f'{name} is pinned twice on {python}'
        pins[name] = specifier.version
    for file in ('runtime', 'detection', 'toydrive', 'tests'):
        for line in (repository_root / 'requirements' / f'{file}.txt').read_text().splitlines():
            if line.strip() and not line.startswith('#'):
                requirement = Requirement(line)
                name = canonicalize_name(requirement.name)
                assert requirement.specifier.contains(pins[name]), f'{file}: {line}, {pins[name]}'


def test_ranges_agree_with_the_package(repository_root) -> None:
    """requirements/ and s3pt_mm.VERSION_WINDOWS name the same bounds."""
    from s3pt_mm import VERSION_WINDOWS

    found = {}
    for file in ('runtime', 'detection'):
        for line in (repository_root / 'requirements' / f'{file}.txt').read_text().splitlines():
            match = re.fullmatch(r'([\w-]+)>=([\d.]+),<([\d.]+)', line)
            if match and match[1] in VERSION_WINDOWS:
                found[match[1]] = (match[2], match[3])
    assert found == VERSION_WINDOWS


def test_a_complete_environment_is_left_alone(setup_folder, tmp_path, monkeypatch, capsys) -> None:
    """The stamp of this checkout and these pins ends the set-up in a moment."""
    monkeypatch.syspath_prepend(setup_folder)
    setup_env = _load(setup_folder, 'setup_env')
    stamp = tmp_path / '.s3pt_mm-complete'
    stamp.write_text(f'{setup_env.environment_key()} {setup_env.ROOT}')
    monkeypatch.setattr(sys, 'argv', ['setup_env.py', str(tmp_path)])
    start = time.monotonic()
    setup_env.main()
    assert time.monotonic() - start < 1.0 and capsys.readouterr().out == ''
    (tmp_path / '.s3pt_mm-complete').unlink()
    (tmp_path / 'precious').write_text('x')
    monkeypatch.setattr(setup_env.preflight, 'check_machine', lambda: [])
    monkeypatch.setattr(setup_env.preflight, 'check_space', lambda *places: [])
    monkeypatch.setenv('S3PT_MM_CACHE', str(tmp_path / 'precious-cache'))
    with pytest.raises(SystemExit, match='no virtual environment'):
        setup_env.main()
    assert (tmp_path / 'precious').read_text() == 'x'
