"""Views coloured as a batch are those coloured one by one in a worker."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from s3pt_mm.data.transforms import Photometric
from s3pt_mm.kernels.photometric import NEUTRAL, colour_views
from s3pt_mm.method.algorithms.token_fields import ViewsPreprocessor

OFF = dict(jitter_prob=0, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
OFF |= dict(grey_prob=0, blur_prob=0, blur_sigma=(0.1, 2.0), solarize_prob=0)
CASES = dict(
    jitter=dict(jitter_prob=1),
    hue=dict(jitter_prob=1, brightness=0, contrast=0, saturation=0),
    grey=dict(grey_prob=1),
    blur=dict(blur_prob=1),
    solarize=dict(solarize_prob=1),
    dino=dict(jitter_prob=0.8, grey_prob=0.2, blur_prob=0.5, solarize_prob=0.2),
)


def pictures(count: int) -> np.ndarray:
    noise = np.random.RandomState(0).randint(0, 255, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (40, 32), interpolation=cv2.INTER_CUBIC) for one in noise])


@pytest.mark.parametrize('name', CASES)
def test_equals_the_plain_form(name: str) -> None:
    photometric = Photometric(**{**OFF, **CASES[name]})
    images = pictures(24)
    draws = [photometric.draw() for _ in images]
    wanted = np.stack([photometric.apply(*one) for one in zip(images, draws, strict=True)])
    rows = torch.from_numpy(np.stack([photometric.as_row(draw) for draw in draws]))
    found = colour_views(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), rows)
    difference = np.abs(found.permute(0, 2, 3, 1).numpy().astype(int) - wanted)
    if name in ('jitter', 'hue', 'blur', 'solarize'):
        assert not np.array_equal(wanted, images)
    # Each step rounds; a value at the edge of two levels may go the other way, once a step.
    border = difference.reshape(len(images), -1)
    assert np.quantile(border, 0.999) <= 3 and border.mean() < 0.2


def test_neutral_draws_change_nothing() -> None:
    images = torch.from_numpy(pictures(3)).permute(0, 3, 1, 2).contiguous()
    assert torch.equal(colour_views(images, torch.tensor([NEUTRAL] * 3)), images)


def test_the_draws_are_the_workers() -> None:
    """One generator state gives the same numbers whether they are applied here or there."""
    photometric = Photometric(**{**OFF, **CASES['dino']})
    image = pictures(1)[0]
    np.random.seed(5)
    called = [photometric(image) for _ in range(6)]
    after = np.random.rand()
    np.random.seed(5)
    drawn = [photometric.apply(image, photometric.draw()) for _ in range(6)]
    assert after == np.random.rand() and np.array_equal(called, drawn)


def test_preprocessor_colours_what_the_pipeline_left() -> None:
    views = [torch.from_numpy(pictures(2)).permute(0, 3, 1, 2).contiguous() for _ in range(2)]
    row = torch.tensor(NEUTRAL)
    row[4] = 0.5  # half the brightness
    samples = [DataSample(), DataSample()]
    samples[0].set_field(torch.stack([row, torch.tensor(NEUTRAL)]), 'view_colours')
    samples[1].set_field(torch.tensor([NEUTRAL] * 2), 'view_colours')
    preprocessor = ViewsPreprocessor(mean=[0, 0, 0], std=[1, 1, 1])
    found = preprocessor(dict(inputs=views, data_samples=samples))['inputs']
    assert torch.equal(found[0][0], (views[0][0].float() * 0.5).round())
    assert torch.equal(found[0][1], views[0][1].float()) and torch.equal(found[1], views[1].float())
