"""The demo's pictures, drawn from scenes that are made up."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tools.dev.demo.pictures import draw_neighbours
from tools.dev.demo.scenes import Scene


def scene(objects: int) -> Scene:
    return Scene(
        image=np.zeros((9, 16, 3), np.uint8),
        points=np.zeros((0, 3)),
        size=(16, 9),
        views=[np.zeros((16, 16, 3), np.uint8)] * 2,
        labels=np.arange(8).reshape(2, 2, 2) % 4,
        tokens=torch.zeros(2, 2, 2, 3),
        objects=torch.eye(3)[:objects],
        object_clusters=np.arange(objects),
    )


@pytest.mark.parametrize('counts', [(2, 3, 1, 2, 3), (0, 2, 0, 3, 1), (0, 1), (0, 0)])
def test_neighbours_with_images_that_have_no_object(counts: tuple, tmp_path: Path) -> None:
    path = draw_neighbours([scene(count) for count in counts], tmp_path / 'neighbours.png')
    assert path.stat().st_size > 1000
