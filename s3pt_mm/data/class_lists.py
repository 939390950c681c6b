"""Class lists of one's own: a small YAML or JSON file that says what a mask's values mean.

docs/own_labels.md has the format. :func:`class_set` takes such a file wherever the name of a
shipped class set is taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.class_sets import CLASS_SETS, IGNORE, ClassSet

SUFFIXES = ('.yaml', '.yml', '.json')
_REMEDY = 'docs/own_labels.md shows the format'


def class_set(chosen: ClassSet | str | os.PathLike[str]) -> ClassSet:
    """The class set of a name, of a file, or itself.

    Raises:
        ValueError: A name that does not exist; the message lists those that do.
        DataError: A file that is missing or no class list.
    """
    if isinstance(chosen, ClassSet):
        return chosen
    if str(chosen) in CLASS_SETS:
        return CLASS_SETS[str(chosen)]
    if Path(chosen).suffix.lower() not in SUFFIXES:
        raise ValueError(
            f'There is no class set {str(chosen)!r}: choose {", ".join(CLASS_SETS)}, or name a '
            f'file of your own classes ({", ".join(SUFFIXES)}).'
        )
    return load_class_list(chosen)


def load_class_list(path: str | os.PathLike[str]) -> ClassSet:
    """Read a class list.

    The file is a list of class names (the value in the masks is the place in the list), or a
    mapping with ``classes`` (names, or mappings with ``name``, ``ids`` and ``colour``), ``ignore``
    (values, or colours of colour masks, that count nowhere, default 255) and ``name`` (default:
    the file's).

    Raises:
        DataError: The file is missing, no YAML or JSON, or says something impossible.
    """
    path = Path(path).expanduser()
    content = read_settings(path, 'class list', _REMEDY)
    if isinstance(content, list):
        content = dict(classes=content)
    try:
        return _class_set(content, default_name=path.stem)
    except ValueError as error:
        raise DataError(path, str(error), _REMEDY) from None


def read_settings(path: Path, kind: str, remedy: str) -> Any:
    """Content of a YAML or JSON file, plain data.

    Raises:
        DataError: The file cannot be read or is neither.
    """
    try:
        text = path.read_text(encoding='utf-8')
        return json.loads(text) if path.suffix == '.json' else yaml.safe_load(text)
    except OSError as error:
        raise DataError(path, f'cannot be read ({error.strerror})', remedy) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise DataError(path, f'is no {kind} ({reason})', remedy) from None


def _class_set(content: Any, *, default_name: str) -> ClassSet:
    if not isinstance(content, Mapping):
        raise ValueError(f'holds a {type(content).__name__}, not a list of classes')
    _only(content, ('name', 'classes', 'ignore'), 'the file')
    entries = content.get('classes')
    if not isinstance(entries, list) or not 1 <= len(entries) < IGNORE:
        raise ValueError(f"'classes' must list 1 to {IGNORE - 1} classes")
    classes: list[str] = []
    palette: list[tuple[int, int, int]] = []
    ignored = _list(content.get('ignore', IGNORE))
    colours = tuple(_rgb(value, "'ignore'") for value in ignored if isinstance(value, list))
    labels = {_byte(v, "'ignore'"): IGNORE for v in ignored if not isinstance(v, list)}
    for index, entry in enumerate(entries):
        entry = entry if isinstance(entry, Mapping) else dict(name=entry)
        _only(entry, ('name', 'ids', 'colour'), f'class {index}')
        name = entry.get('name')
        if not isinstance(name, str) or not name or name in classes:
            raise ValueError(f'class {index} is called {name!r}; names are text, each used once')
        for raw in _list(entry.get('ids', index)):
            other = labels.setdefault(_byte(raw, name), index)
            if other != index:
                owner = 'ignore' if other == IGNORE else classes[other]
                raise ValueError(f'the value {raw} belongs to {owner} and to {name}')
        classes.append(name)
        palette.append(_rgb(entry.get('colour', _colour(index)), name))
    name = str(content.get('name', default_name))
    return ClassSet(name, tuple(classes), tuple(palette), labels, colours)


def _only(mapping: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    strange = sorted(str(key) for key in mapping if key not in known)
    if strange:
        raise ValueError(f'{where} has {strange[0]!r}, which is none of {", ".join(known)}')


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _rgb(value: Any, where: str) -> tuple[int, int, int]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f'colour {value!r} of {where} is not [red, green, blue]')
    red, green, blue = (_byte(part, f'colour of {where}') for part in value)
    return red, green, blue


def _byte(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
        raise ValueError(f'{where} has {value!r}; values and colours are whole numbers, 0 to 255')
    return value


def _colour(index: int) -> tuple[int, int, int]:
    """A colour of its own for each index: the bit-reversed counting of PASCAL VOC's palette."""
    value, colour = index + 1, [0, 0, 0]
    for shift in range(7, -1, -1):
        for channel in range(3):
            colour[channel] |= (value >> channel & 1) << shift
        value >>= 3
    return tuple(colour)
