"""Class lists and colours of nuImages and Cityscapes, and how raw labels map onto them.

A mask file of nuImages holds the devkit's ids (:data:`NUIMAGES_RAW_IDS`): 0 is unlabelled
background, 1 to 23 are the object categories in alphabetical order, 24 the driveable surface, 31
the ego vehicle. A class set turns them into training labels; everything it does not name becomes
:data:`IGNORE` and counts neither in the loss nor in the metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
"""Label of pixels that no loss and no metric may use."""

NUIMAGES_CATEGORIES: tuple[str, ...] = (
    'animal', 'flat.driveable_surface', 'human.pedestrian.adult', 'human.pedestrian.child',
    'human.pedestrian.construction_worker', 'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer', 'human.pedestrian.stroller', 'human.pedestrian.wheelchair',
    'movable_object.barrier', 'movable_object.debris', 'movable_object.pushable_pullable',
    'movable_object.trafficcone', 'static_object.bicycle_rack', 'vehicle.bicycle',
    'vehicle.bus.bendy', 'vehicle.bus.rigid', 'vehicle.car', 'vehicle.construction', 'vehicle.ego',
    'vehicle.emergency.ambulance', 'vehicle.emergency.police', 'vehicle.motorcycle',
    'vehicle.trailer', 'vehicle.truck',
)  # fmt: skip
"""The 25 categories of nuImages, alphabetically."""

BACKGROUND = 'background'
_LAST = {'flat.driveable_surface': 24, 'vehicle.ego': 31}
NUIMAGES_RAW_IDS: Mapping[str, int] = {
    BACKGROUND: 0,
    **{
        name: index
        for index, name in enumerate((n for n in NUIMAGES_CATEGORIES if n not in _LAST), start=1)
    },
    **_LAST,
}
"""Id in a mask file, by category name: the numbering of the devkit's ``get_segmentation``."""


@dataclass(frozen=True)
class ClassSet:
    """Classes of a segmentation task.

    Attributes:
        name: Name in configs and reports.
        classes: Class names; the index is the training label.
        palette: RGB colour of each class.
        raw_to_label: Training label of each value a mask file may hold. A value that is absent
            here is out of range, an error; one that maps to :data:`IGNORE` is ignored.
        ignored_colours: RGB colours that masks which hold colours have where nothing counts.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    raw_to_label: Mapping[int, int]
    ignored_colours: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.palette):
            raise ValueError(
                f'{self.name}: {len(self.classes)} classes, {len(self.palette)} colours.'
            )

    def lookup_table(self) -> NDArray[np.int16]:
        """Training label by raw value, (256,); -1 where a mask file may not have the value."""
        table = np.full(256, -1, np.int16)
        for raw, label in self.raw_to_label.items():
            table[raw] = label
        return table


_DETECTION = {
    'car': ('vehicle.car',),
    'truck': ('vehicle.truck',),
    'trailer': ('vehicle.trailer',),
    'bus': ('vehicle.bus.bendy', 'vehicle.bus.rigid'),
    'construction vehicle': ('vehicle.construction',),
    'bicycle': ('vehicle.bicycle',),
    'motorcycle': ('vehicle.motorcycle',),
    'pedestrian': (
        'human.pedestrian.adult',
        'human.pedestrian.child',
        'human.pedestrian.construction_worker',
        'human.pedestrian.police_officer',
    ),
    'traffic cone': ('movable_object.trafficcone',),
    'barrier': ('movable_object.barrier',),
    'driveable surface': ('flat.driveable_surface',),
    'ego vehicle': ('vehicle.ego',),
    BACKGROUND: (BACKGROUND,),
}

# Where Cityscapes has the class, its colour is Cityscapes', so that figures of both read alike.
_COLOURS: Mapping[str, tuple[int, int, int]] = {
    'car': (0, 0, 142), 'truck': (0, 0, 70), 'trailer': (0, 128, 128), 'bus': (0, 60, 100),
    'construction vehicle': (233, 150, 70), 'bicycle': (119, 11, 32), 'motorcycle': (0, 0, 230),
    'pedestrian': (220, 20, 60), 'traffic cone': (255, 120, 0), 'barrier': (190, 153, 153),
    'driveable surface': (128, 64, 128), 'ego vehicle': (90, 90, 110), BACKGROUND: (200, 214, 200),
    'animal': (70, 160, 40), 'human.pedestrian.adult': (220, 20, 60),
    'human.pedestrian.child': (255, 90, 120), 'human.pedestrian.construction_worker': (255, 40, 0),
    'human.pedestrian.personal_mobility': (255, 0, 255),
    'human.pedestrian.police_officer': (170, 0, 60), 'human.pedestrian.stroller': (255, 160, 200),
    'human.pedestrian.wheelchair': (200, 80, 160), 'movable_object.barrier': (190, 153, 153),
    'movable_object.debris': (110, 90, 60), 'movable_object.pushable_pullable': (160, 120, 40),
    'movable_object.trafficcone': (255, 120, 0), 'static_object.bicycle_rack': (150, 150, 150),
    'vehicle.bicycle': (119, 11, 32), 'vehicle.bus.bendy': (0, 110, 150),
    'vehicle.bus.rigid': (0, 60, 100), 'vehicle.car': (0, 0, 142),
    'vehicle.construction': (233, 150, 70), 'vehicle.ego': (90, 90, 110),
    'vehicle.emergency.ambulance': (250, 220, 60), 'vehicle.emergency.police': (60, 160, 255),
    'vehicle.motorcycle': (0, 0, 230), 'vehicle.trailer': (0, 128, 128),
    'vehicle.truck': (0, 0, 70), 'flat.driveable_surface': (128, 64, 128),
    'large vehicle': (0, 60, 100), 'small object': (220, 20, 60), 'two-wheeler': (119, 11, 32),
    'cone or barrier': (255, 120, 0),
}  # fmt: skip


def _nuimages(name: str, members: Mapping[str, Sequence[str]]) -> ClassSet:
    labels = {raw: IGNORE for raw in (*NUIMAGES_RAW_IDS.values(), IGNORE)}
    for label, categories in enumerate(members.values()):
        labels.update({NUIMAGES_RAW_IDS[category]: label for category in categories})
    return ClassSet(name, tuple(members), tuple(_COLOURS[n] for n in members), labels)


NUIMAGES_13 = _nuimages('nuimages13', _DETECTION)
"""Choice of this package, deduced from the supplement's Table 5: the ten detection classes,
driveable surface, ego vehicle and background; other categories are ignored."""

NUIMAGES_5 = _nuimages(
    'nuimages5',
    {
        'driveable surface': _DETECTION['driveable surface'],
        'car': _DETECTION['car'],
        'large vehicle': sum(
            (_DETECTION[n] for n in ('truck', 'trailer', 'bus', 'construction vehicle')), ()
        ),
        'small object': sum(
            (_DETECTION[n] for n in ('pedestrian', 'bicycle', 'motorcycle', 'traffic cone',
                                     'barrier')), ()
        ),
        BACKGROUND: (BACKGROUND,),
    },
)  # fmt: skip
"""Choice of this package, for the demo's probe: the thirteen classes merged until each has one
percent or more of ToyDrive's pixels, so that no absent or tiny class decides a small split's mean.
The recording car's own body is ignored."""

NUIMAGES_7 = _nuimages(
    'nuimages7',
    {
        'driveable surface': _DETECTION['driveable surface'],
        'car': _DETECTION['car'],
        'large vehicle': sum(
            (_DETECTION[n] for n in ('truck', 'trailer', 'bus', 'construction vehicle')), ()
        ),
        'pedestrian': _DETECTION['pedestrian'],
        'two-wheeler': sum((_DETECTION[n] for n in ('bicycle', 'motorcycle')), ()),
        'cone or barrier': sum((_DETECTION[n] for n in ('traffic cone', 'barrier')), ()),
        BACKGROUND: (BACKGROUND,),
    },
)
"""Choice of this package, for the ladder on ToyDrive: as ``nuimages5``, with the small objects
apart, because rare and small things are what the method is for."""

NUIMAGES_25 = _nuimages('nuimages25', {name: (name,) for name in NUIMAGES_CATEGORIES})
"""All categories of nuImages, each its own class; background is ignored."""

_CITYSCAPES = (
    ('road', (128, 64, 128)), ('sidewalk', (244, 35, 232)), ('building', (70, 70, 70)),
    ('wall', (102, 102, 156)), ('fence', (190, 153, 153)), ('pole', (153, 153, 153)),
    ('traffic light', (250, 170, 30)), ('traffic sign', (220, 220, 0)),
    ('vegetation', (107, 142, 35)), ('terrain', (152, 251, 152)), ('sky', (70, 130, 180)),
    ('person', (220, 20, 60)), ('rider', (255, 0, 0)), ('car', (0, 0, 142)), ('truck', (0, 0, 70)),
    ('bus', (0, 60, 100)), ('train', (0, 80, 100)), ('motorcycle', (0, 0, 230)),
    ('bicycle', (119, 11, 32)),
)  # fmt: skip
CITYSCAPES_19 = ClassSet(
    'cityscapes19',
    tuple(name for name, _ in _CITYSCAPES),
    tuple(colour for _, colour in _CITYSCAPES),
    {**{i: i for i in range(len(_CITYSCAPES))}, IGNORE: IGNORE},
)
"""The 19 training classes of Cityscapes, as ``labelTrainIds`` files hold them."""

CLASS_SETS: Mapping[str, ClassSet] = {
    class_set.name: class_set
    for class_set in (NUIMAGES_5, NUIMAGES_7, NUIMAGES_13, NUIMAGES_25, CITYSCAPES_19)
}
