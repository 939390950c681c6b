"""Places of this repository where a file's content could become code, found by reading its code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

#: Calls and base classes that turn a file, an address or a text into objects: how their names end.
LOADERS = (
    'torch.load',
    'load_state_dict_from_url',
    'download_url_to_file',
    'jit.load',
    'pickle.load',
    'pickle.loads',
    'Unpickler',
    'marshal.loads',
    'shelve.open',
    'joblib.load',
    'read_pickle',
    'np.load',
    'numpy.load',
    'yaml.load',
    'yaml.unsafe_load',
    'yaml.full_load',
    'load_checkpoint',
    '_load_checkpoint',
    'load_url',
    'load_from_http',
    'mmengine.load',
    'fileio.load',
    'Config.fromfile',
    'Config.fromstring',
    'eval',
    'exec',
    'extractall',
    'unpack_archive',
    'safe_open',
    'load_file',
    'ParquetFile',
    'read_table',
    'urlopen',
    'urlretrieve',
    'from_pretrained',
)
_BUILTINS = ('eval', 'exec')


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f'{_name(node.value)}.{node.attr}'
    return node.id if isinstance(node, ast.Name) else '?'


def _loader(name: str) -> str | None:
    for loader in LOADERS:
        if name == loader or (loader not in _BUILTINS and name.endswith(f'.{loader}')):
            return loader
    return None


def doors_of(source: str) -> Iterator[str]:
    """The loader of every call, and of every base class, in a module's text."""
    for node in ast.walk(ast.parse(source)):
        named = [node.func] if isinstance(node, ast.Call) else []
        named += node.bases if isinstance(node, ast.ClassDef) else []
        yield from filter(None, map(_loader, map(_name, named)))


def doors(*folders: str) -> set[tuple[str, str]]:
    """(file relative to the repository, loader) of all modules of some folders, at any depth."""
    return {
        (path.relative_to(REPOSITORY).as_posix(), found)
        for folder in folders
        for path in sorted((REPOSITORY / folder).rglob('*.py'))
        for found in doors_of(path.read_text(encoding='utf-8'))
    }
