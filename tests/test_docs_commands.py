"""Commands that the docs print: the files they name exist, the options they use are known."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
_COMMAND = re.compile(
    r'^\s*(?:\$ )?(?:torchrun .*--no-python )?((?:python tools/|bash tools/|s3pt-[\w-]+\s)\S.*)$'
)


def commands(page: Path) -> Iterator[str]:
    """Whole commands of a page, lines joined at backslashes, comments cut."""
    text = page.read_text().replace('\\\n', ' ')
    for line in text.splitlines():
        match = _COMMAND.match(line.split('  #')[0])
        if match and '...' not in line:
            yield ' '.join(match[1].split(' # ')[0].split())


def console_scripts() -> dict[str, str]:
    """``s3pt-NAME`` -> module of ``s3pt_mm.cli``, read from setup.py without running it."""
    for node in ast.parse((ROOT / 'setup.py').read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == 'COMMANDS':
            return ast.literal_eval(node.value)
    raise AssertionError('setup.py has no COMMANDS')


@cache
def help_of(module: str, *words: str) -> str:
    """What ``--help`` of a command prints."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            importlib.import_module(module).main([*words, '--help'])
        except SystemExit:
            pass
    return out.getvalue()


def module_of(command: str) -> tuple[str | None, str]:
    """Module behind a command, and the file it must have in the checkout."""
    word = shlex.split(command)
    if word[0].startswith('s3pt-'):
        name = console_scripts()[word[0].removeprefix('s3pt-')]
        return f's3pt_mm.cli.{name}', f's3pt_mm/cli/{name}.py'
    path = word[1]
    cli = path.removeprefix('tools/').removesuffix('.py')
    module = f's3pt_mm.cli.{cli}' if (ROOT / f's3pt_mm/cli/{cli}.py').is_file() else None
    return module, path


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_commands_are_real(page: Path):
    for command in commands(page):
        module, path = module_of(command)
        assert (ROOT / path).is_file(), f'{page.name}: {command}: no {path}'
        for config in re.findall(r'\bconfigs/[\w/]+\.py', command):
            assert (ROOT / config).is_file(), f'{page.name}: {command}: no {config}'
        if module:
            words = shlex.split(command)
            sub = words[1:2] if words[0] in ('s3pt-data', 's3pt-report') else []
            known = command if sub == ['FORMAT'] else help_of(module, *sub)
            for option in re.findall(r'(?<=\s)--[\w-]+', command):
                assert option in known, f'{page.name}: {command}: {option} is not in --help'


def test_commands_have_one_name():
    """``s3pt-NAME`` in messages, docs and configs: a wheel has no ``tools/``."""
    scripts = '|'.join(console_scripts().values())
    script = re.compile(rf'(?<![\w/])(tools/)?({scripts})\.py\b')
    sources = [path for name in ('s3pt_mm', 'configs') for path in (ROOT / name).rglob('*.py')]
    for path in (*PAGES, *sources):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            named = script.search(line) and 'shipped(' not in line
            assert not named, f'{path.relative_to(ROOT)}:{number}: {line.strip()}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_checkpoints_are_where_runs_put_them(page: Path):
    """``work_dirs/<path below configs/>/epoch_N.pth``: mmengine writes no latest.pth."""
    text = page.read_text()
    assert 'latest.pth' not in text
    for folder, name in re.findall(r'work_dirs/([\w/]+)/((?:epoch|iter)_\w+\.pth)', text):
        assert (ROOT / 'configs' / f'{folder}.py').is_file() or folder.split('/')[0] in (
            'demo', 'mine',
        ), f'{page.name}: work_dirs/{folder}/{name} belongs to no config'  # fmt: skip
