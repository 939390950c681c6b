"""Which classes two data sets share, for testing on another domain than the one trained on."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3pt_mm.data.class_sets import CLASS_SETS, ClassSet

PACKAGE = 's3pt_mm.segmentation.mappings'


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
    class_set = CLASS_SETS[name]
    return ClassMapping(class_set, class_set, {c: ((c,), (c,)) for c in class_set.classes})


def load_mapping(name: str) -> ClassMapping:
    """The mapping of a pair of data sets.

    Args:
        name: Module in ``s3pt_mm/segmentation/mappings``, e.g. ``nuimages_to_cityscapes``.

    Raises:
        ValueError: There is none of that name; the message lists those there are.
    """
    names = mapping_names()
    if name not in names:
        raise ValueError(f'No class mapping {name!r}; there are {names}.')
    return importlib.import_module(f'{PACKAGE}.{name}').MAPPING


def mapping_names() -> list[str]:
    """Names of all mappings."""
    return sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__))
