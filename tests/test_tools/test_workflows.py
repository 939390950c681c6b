"""GitHub's workflows and the Dockerfile call what there is; neither runs here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / '.github' / 'workflows').glob('*.yml'))


def jobs(path: Path) -> dict[str, dict]:
    """Jobs of a workflow, by name."""
    return yaml.safe_load(path.read_text())['jobs']


def shell_commands(text: str) -> Iterator[list[str]]:
    """Simple commands of a script."""
    for line in re.split(r'&&|\n|;', text.replace('\\\n', ' ')):
        if words := shlex.split(line, comments=True):
            yield words


def check(words: list[str]) -> None:
    """make's targets are in the Makefile; a script is there and may be run."""
    if words[0] == 'make':
        targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
        named = [word for word in words[1:] if '=' not in word and not word.startswith('-')]
        assert named and set(named) <= set(targets), words
    elif words[0] in ('bash', 'sh', 'python'):
        assert (ROOT / words[1]).is_file(), words


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_steps_of_workflows(path: Path) -> None:
    for name, job in jobs(path).items():
        assert job['runs-on'] and job['steps'], name
        for step in job['steps']:
            assert ('uses' in step) != ('run' in step), step
            if 'uses' in step:
                assert re.fullmatch(r'[\w-]+/[\w/-]+@v\d+', step['uses'])
            else:
                for words in shell_commands(step['run']):
                    check(words)


def test_workflows_try_every_python_that_the_package_names() -> None:
    """Unquoted, YAML reads 3.10 as 3.1."""
    tried = jobs(ROOT / '.github/workflows/ci.yml')['test']['strategy']['matrix']['python']
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"',
                       (ROOT / 'pyproject.toml').read_text())  # fmt: skip
    assert tried == named and len(named) == 3


def test_dockerfile() -> None:
    """What it calls is there, and nothing that it needs is left out of the build's context."""
    text = (ROOT / 'Dockerfile').read_text().replace('\\\n', ' ')
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
    assert re.fullmatch(r'FROM python:3\.1[0-2]-slim', lines[0])
    for line in lines:
        instruction, rest = line.split(maxsplit=1)
        if instruction == 'RUN':
            for words in shell_commands(rest):
                check(words)
    (venv,) = re.findall(r'VENV=(\S+)', text)
    assert f'PATH={venv}/bin:$PATH' in text
    left_out = (ROOT / '.dockerignore').read_text().split()
    needed = {'Makefile', 'requirements', 'tools', 's3pt_mm', 'configs', 'setup.py', 'README.md'}
    assert not needed & set(left_out) and {'.git', '.venv', 'work_dirs'} <= set(left_out)
