"""Which classes two data sets share, for testing on another domain than the one trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.class_lists import SUFFIXES, read_settings
from s3pt_mm.data.class_lists import class_set as find_class_set
from s3pt_mm.data.class_sets import CITYSCAPES_19, NUIMAGES_13, ClassSet

_REMEDY = 'docs/add_a_class_mapping.md shows the format'


@dataclass(frozen=True)
class ClassMapping:
    """Shared classes of a source (trained on) and a target (tested on) data set.

    Attributes:
        source: Class set of the training data.
        target: Class set of the test data.
        shared: Name of each shared class -> (source classes, target classes) that it is made of.

    Raises:
        ValueError: A class does not exist, is used twice, or a shared class has no member.
    """

    source: ClassSet
    target: ClassSet
    shared: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]

    def __post_init__(self) -> None:
        for side, class_set in enumerate((self.source, self.target)):
            used = [name for members in self.shared.values() for name in members[side]]
            strangers = sorted(set(used) - set(class_set.classes))
            twice = sorted({name for name in used if used.count(name) > 1})
            if strangers or twice:
                raise ValueError(
                    f'{class_set.name}: no such class {strangers}; used twice {twice}.'
                )
        empty = [name for name, members in self.shared.items() if not all(members)]
        if empty or not self.shared:
            raise ValueError(f'Shared classes without a member on both sides: {empty}.')

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the shared classes."""
        return tuple(self.shared)

    def reversed(self) -> ClassMapping:
        """Trained on the target, tested on the source."""
        shared = {name: (target, source) for name, (source, target) in self.shared.items()}
        return ClassMapping(self.target, self.source, shared)

    def lookup_table(self, side: str, *, missing: int) -> NDArray[np.int16]:
        """Shared class by class of one side, (256,); ``missing`` where a class is not shared."""
        index = dict(source=0, target=1)[side]
        classes = (self.source, self.target)[index].classes
        table = np.full(256, missing, np.int16)
        for label, members in enumerate(self.shared.values()):
            for name in members[index]:
                table[classes.index(name)] = label
        return table


def same_classes(name: str) -> ClassMapping:
    """Mapping between two data sets with one class list (another weather, another city)."""
    class_set = find_class_set(name)
    return ClassMapping(class_set, class_set, {c: ((c,), (c,)) for c in class_set.classes})


NUIMAGES_TO_CITYSCAPES = ClassMapping(
    NUIMAGES_13,
    CITYSCAPES_19,
    {
        'road': (('driveable surface',), ('road',)),
        'car': (('car',), ('car',)),
        'truck': (('truck',), ('truck',)),
        'bus': (('bus',), ('bus',)),
        'motorcycle': (('motorcycle',), ('motorcycle',)),
        'bicycle': (('bicycle',), ('bicycle',)),
        'person': (('pedestrian',), ('person',)),
        'background': (
            ('background',),
            (
                'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
                'vegetation', 'terrain', 'sky',
            ),
        ),
    },
)  # fmt: skip
"""The eight classes that both label alike. nuImages' driveable surface is Cityscapes' road. Riders
are left out: Cityscapes tells them from persons, in nuImages they are part of the two-wheeler. Out
too are construction vehicles and trailers (trucks or unlabelled in Cityscapes), barrier and cone
(no class there)."""

#: By name, what ``s3pt-domains --mapping`` takes. Another weather or city with one
#: class list is one line; docs/add_a_class_mapping.md.
MAPPINGS: dict[str, ClassMapping] = {
    'nuimages_to_cityscapes': NUIMAGES_TO_CITYSCAPES,
    'cityscapes_to_nuimages': NUIMAGES_TO_CITYSCAPES.reversed(),
    'cityscapes_to_acdc': same_classes('cityscapes19'),
    'cityscapes_to_dark_zurich': same_classes('cityscapes19'),
    'cityscapes_to_foggy_cityscapes': same_classes('cityscapes19'),
    'cityscapes_to_foggy_driving': same_classes('cityscapes19'),
    'cityscapes_to_night_driving': same_classes('cityscapes19'),
    'toydrive_day_to_fog': same_classes('nuimages13'),
    'toydrive_day_to_night': same_classes('nuimages13'),
}


def load_mapping(name: str) -> ClassMapping:
    """The mapping of a pair of data sets: a name, or a YAML or JSON file of one's own.

    The file has ``source`` and ``target`` (class lists, relative to it, or names of class sets) and
    ``shared``: each shared class's ``[source classes, target classes]``. Without ``shared`` and
    ``target`` all classes of the source are shared with a target of the same list.

    Raises:
        ValueError: There is none of that name; the message lists those there are.
        DataError: The file is missing or says something impossible.
    """
    if name in MAPPINGS:
        return MAPPINGS[name]
    path = Path(name).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f'No class mapping {name!r}; there are {sorted(MAPPINGS)}, or name a file '
            f'({", ".join(SUFFIXES)}).'
        )
    content = read_settings(path, 'class mapping', _REMEDY)
    try:
        return _mapping(content, path.parent)
    except (ValueError, TypeError) as error:
        raise DataError(path, str(error).rstrip('.'), _REMEDY) from None


def _mapping(content: Any, folder: Path) -> ClassMapping:
    known = {'source', 'target', 'shared'}
    if not isinstance(content, dict) or 'source' not in content or not content.keys() <= known:
        raise ValueError(f'a mapping has source, target and shared, this one {content!r:.80}')

    def classes(named: str) -> ClassSet:
        return find_class_set(folder / named if (folder / named).is_file() else named)

    source = classes(content['source'])
    target = classes(content.get('target', content['source']))
    shared = content.get('shared', {name: [name, name] for name in source.classes})
    if not isinstance(shared, dict):
        raise ValueError("'shared' is no mapping from names to [source, target]")
    sides: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for name, members in shared.items():
        if not isinstance(members, list) or len(members) != 2:
            raise ValueError(f'{name} is {members!r}, not [source classes, target classes]')
        mine, theirs = (tuple(m if isinstance(m, list) else [m]) for m in members)
        sides[str(name)] = (mine, theirs)
    return ClassMapping(source, target, sides)
