"""The set-up's checks and its pins."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from s3pt_mm import VERSION_WINDOWS

#: What `make setup` installs beyond what `pip install s3pt_mm` does.
FILES = ('runtime', 'segmentation', 'detection', 'toydrive', 'formats', 'export', 'docs', 'tests')
FILES += ('dev',)


@pytest.fixture
def setup_env(repository) -> ModuleType:
    """``tools/setup_env.py``."""
    path = repository / 'tools' / 'setup_env.py'
    spec = importlib.util.spec_from_file_location('setup_env', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_disk_says_how_much_is_needed_and_there(setup_env, tmp_path, monkeypatch) -> None:
    """One line, before anything is downloaded, about the disk that will hold the environment."""
    usage = SimpleNamespace(free=6_000_000_000)
    monkeypatch.setattr(setup_env.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(SystemExit, match=r'8 GB .* 6\.0 GB .* VENV') as error:
        setup_env.check_disk(tmp_path / 'not' / 'yet')
    assert '\n' not in str(error.value)
    usage.free = 9_000_000_000
    setup_env.check_disk(tmp_path / 'not' / 'yet')


def fake(folder: Path, name: str, says: str, code: int = 0) -> Path:
    """A program that prints and exits."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{says}"\nexit {code}\n')
    path.chmod(0o755)
    return path


def test_an_installed_uv_is_used_if_it_is_new_enough(setup_env, tmp_path, monkeypatch) -> None:
    """Otherwise one is fetched from PyPI into an environment of its own, once."""
    uv = fake(tmp_path / 'bin', 'uv', 'uv 0.11.2 (linux)')
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.setenv('S3PT_MM_CACHE', str(tmp_path / 'cache'))
    assert setup_env.find_uv() == str(uv)
    fake(tmp_path / 'bin', 'uv', 'uv 0.4.30')
    ran = []

    def run(*command):
        ran.append(command)
        if 'pip' in command:
            fake(Path(command[0]).parent, 'uv', 'uv 0.13.9')
        else:
            (Path(command[-1]) / 'bin').mkdir(parents=True)

    monkeypatch.setattr(setup_env, '_run', run)
    found = setup_env.find_uv()
    assert found.is_relative_to(tmp_path / 'cache') and ran[-1][-1] == setup_env.UV
    assert setup_env.find_uv() == found and len(ran) == 2


def test_shell_names_a_wrong_python(repository, tmp_path) -> None:
    """The shell part refuses before any of our Python runs."""
    python = fake(tmp_path, 'python3.7', 'Python 3.7.1', code=1)
    done = subprocess.run(
        [repository / 'tools' / 'setup_env.sh', str(tmp_path / 'venv')],
        env={'PYTHON': str(python), 'PATH': '/usr/bin:/bin'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert 'Python 3.7.1' in done.stderr and not (tmp_path / 'venv').exists()


def test_key_follows_the_pins_and_nothing_else(repository, tmp_path) -> None:
    """Another pin is another environment; another README is not."""
    for name in ('requirements', 'tools'):
        shutil.copytree(
            repository / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__')
        )
    hosts = tmp_path / 's3pt_mm' / 'hosts'
    hosts.mkdir(parents=True)
    shutil.copy(repository / 's3pt_mm' / 'hosts' / 'mmcv_ext.py', hosts)

    def key() -> str:
        command = [tmp_path / 'tools' / 'setup_env.sh', '--print-key']
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    first = key()
    (tmp_path / 'README.md').write_text('x')
    assert key() == first and re.fullmatch('[0-9a-f]{16}', first)
    with (tmp_path / 'requirements' / 'lock.txt').open('a') as file:
        file.write('another==1.0\n')
    assert key() != first


def ranges(repository: Path, file: str) -> list[Requirement]:
    """Lines of one file of requirements/."""
    lines = (repository / 'requirements' / f'{file}.txt').read_text().splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith('#')]


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12'])
def test_lock_pins_every_requirement_once(repository, python) -> None:
    """Each range of requirements/ has one exact pin inside it, on every accepted Python; the
    lock's own rule `make lock` keeps them so."""
    environment = {'python_version': python, 'python_full_version': f'{python}.9'}
    pins: dict[str, str] = {}
    for requirement in ranges(repository, 'lock'):
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        (specifier,) = requirement.specifier
        assert specifier.operator == '==', requirement
        name = canonicalize_name(requirement.name)
        assert name not in pins, f'{name} is pinned twice on {python}'
        pins[name] = specifier.version
    assert {path.stem for path in (repository / 'requirements').iterdir()} == {*FILES, 'lock'}
    for file in FILES:
        for requirement in ranges(repository, file):
            pin = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin), f'{file}: {requirement}, {pin}'


def test_ranges_agree_with_the_package(repository) -> None:
    """requirements/ and s3pt_mm.VERSION_WINDOWS name the same bounds."""
    found = {
        requirement.name: requirement.specifier
        for file in ('runtime', 'segmentation', 'detection')
        for requirement in ranges(repository, file)
        if requirement.name in VERSION_WINDOWS
    }
    assert set(found) == set(VERSION_WINDOWS) - {'mmcv'}
    for name, (first, stop) in VERSION_WINDOWS.items():
        if name != 'mmcv':
            assert {str(part) for part in found[name]} == {f'>={first}', f'<{stop}'}, name
    assert VERSION_WINDOWS['mmcv'] == VERSION_WINDOWS['mmcv-lite']


def test_a_complete_environment_is_left_alone(setup_env, tmp_path, monkeypatch, capsys) -> None:
    """The stamp of this checkout and these pins ends the set-up before anything is run."""
    monkeypatch.setattr(setup_env, '_run', lambda *command: pytest.fail(f'ran {command}'))
    stamp = tmp_path / '.s3pt_mm-complete'
    stamp.write_text(f'{setup_env.environment_key()} {setup_env.ROOT}')
    monkeypatch.setattr(sys, 'argv', ['setup_env.py', str(tmp_path)])
    setup_env.main()
    assert capsys.readouterr().out == ''


def test_a_folder_of_something_else_is_left_alone(setup_env, tmp_path, monkeypatch) -> None:
    """VENV pointing at a person's folder is refused, and nothing in it is touched."""
    (tmp_path / 'precious').write_text('x')
    monkeypatch.setattr(setup_env, 'check_disk', lambda folder: None)
    monkeypatch.setattr(setup_env, 'find_uv', lambda: 'uv')
    monkeypatch.setattr(sys, 'argv', ['setup_env.py', str(tmp_path)])
    with pytest.raises(SystemExit, match='no virtual environment'):
        setup_env.main()
    assert (tmp_path / 'precious').read_text() == 'x'
    assert not (tmp_path / '.s3pt_mm-complete').exists()
