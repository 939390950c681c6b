"""One colour a class and one a model, the same in every figure of the package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s3pt_mm.data.class_sets import IGNORE, ClassSet

IGNORED_COLOUR = (0, 0, 0)
# Okabe and Ito's colours: told apart by colour-blind readers and in grey.
MODEL_COLOURS = ('#999999', '#56B4E9', '#E69F00', '#009E73', '#0072B2', '#D55E00', '#CC79A7')


def colourise(labels: NDArray, class_set: ClassSet) -> NDArray[np.uint8]:
    """Paint a label map.

    Args:
        labels: (H, W) labels, 255 where ignored.
        class_set: Its classes and colours.

    Returns:
        (H, W, 3) RGB; ignored pixels are black.

    Raises:
        ValueError: A label is no class.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(class_set.palette)] = class_set.palette
    table[IGNORE] = IGNORED_COLOUR
    strangers = set(np.unique(labels).tolist()) - set(range(len(class_set.classes))) - {IGNORE}
    if strangers:
        raise ValueError(f'Labels {sorted(strangers)} are no classes of {class_set.name}.')
    return table[labels]


def model_colour(index: int) -> str:
    """Colour of the index-th model of a figure."""
    return MODEL_COLOURS[index % len(MODEL_COLOURS)]
