from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from s3pt_mm.detection.petr.position_embedding import (
    FrustumCache,
    depth_bins,
    frustum_points,
    sine_embedding,
    stack_lidar2img,
    view_positions,
)
from s3pt_mm.detection.petr.tokens import padding_of_tokens
from tools.dev.benchmark_detection import make_samples

from .petr_cases import tiny_head

RANGE = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
IMAGE, SIZE = (32, 48), (2, 3)


def rig() -> np.ndarray:
    return np.stack(make_samples(1, views=3, image_size=IMAGE)[0].metainfo['lidar2img'])


def test_points_project_back_to_their_pixel_and_depth() -> None:
    depths = depth_bins(8, 1.0, 61.2)
    points = frustum_points(rig(), IMAGE, SIZE, depths, RANGE).double().numpy()
    low, high = np.reshape(RANGE, (2, 3))
    metres = points * (high - low) + low
    homogeneous = np.concatenate([metres, np.ones_like(metres[..., :1])], -1)
    projected = np.einsum('vij,vhwdj->vhwdi', rig(), homogeneous)
    depth = projected[..., 2]
    np.testing.assert_allclose(depth, np.broadcast_to(depths, depth.shape), rtol=1e-4)
    x, y = projected[..., 0] / depth, projected[..., 1] / depth
    columns, rows = 16.0 * np.arange(3), 16.0 * np.arange(2)
    np.testing.assert_allclose(x, np.broadcast_to(columns[:, None], x.shape), atol=1e-2)
    np.testing.assert_allclose(y, np.broadcast_to(rows[:, None, None], y.shape), atol=1e-2)


def test_depth_bins_grow_linearly() -> None:
    bins = depth_bins(64, 1.0, 61.2)
    assert float(bins[0]) == 1.0
    steps = bins.diff()
    torch.testing.assert_close(
        steps.diff(), torch.full((62,), 2 * 60.2 / (64 * 65)), atol=1e-4, rtol=0
    )
    assert float(bins[-1] + steps[-1] + steps.diff()[-1]) == pytest.approx(61.2, abs=1e-3)


def test_cache_computes_a_calibration_once_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FrustumCache(depths=depth_bins(4, 1.0, 60.0), position_range=RANGE, max_entries=2)
    device, first = torch.device('cpu'), rig()
    volume = cache.lookup(first, IMAGE, SIZE, device)
    assert volume.shape == (18, 12)
    assert cache.lookup(first.copy(), IMAGE, SIZE, device) is volume  # by content
    shifted = [first + 1e-6 * n for n in (1, 2)]
    assert cache.lookup(shifted[0], IMAGE, SIZE, device) is not volume
    assert cache.lookup(first, IMAGE, SIZE, device) is volume  # now the latest
    cache.lookup(shifted[1], IMAGE, SIZE, device)
    assert len(cache) == 2
    monkeypatch.setattr('s3pt_mm.detection.petr.position_embedding.frustum_points', None)
    assert cache.lookup(first, IMAGE, SIZE, device) is volume  # the older one went
    with pytest.raises(TypeError):
        cache.lookup(shifted[0], IMAGE, SIZE, device)
    assert len(copy.deepcopy(cache)) == 0


def test_cache_of_size_zero_keeps_nothing() -> None:
    cache = FrustumCache(depths=depth_bins(4, 1.0, 60.0), position_range=RANGE, max_entries=0)
    assert cache.lookup(rig(), IMAGE, SIZE, torch.device('cpu')).shape == (18, 12)
    assert len(cache) == 0


def test_sines_side_by_side_or_in_halves() -> None:
    values = torch.tensor([0.3, 2.0])
    side, halves = (sine_embedding(values, 4, interleave=i) for i in (True, False))
    slow = values / 10000**0.5
    expected = torch.stack([values.sin(), values.cos(), slow.sin(), slow.cos()], -1)
    torch.testing.assert_close(side, expected)
    torch.testing.assert_close(halves, expected[:, [0, 2, 1, 3]])


def test_view_positions_count_valid_tokens() -> None:
    valid = torch.tensor([[1.0, 1, 1, 0]])
    turn = 2 * torch.pi
    expected = torch.tensor([[turn / 3, 2 * turn / 3, turn, turn]])
    torch.testing.assert_close(view_positions(valid, 1), expected, atol=1e-4, rtol=0)


def test_separated_view_embedding_equals_the_dense_one() -> None:
    head = tiny_head().eval()
    dense = head.view_embedding(3, SIZE, torch.zeros(2, 3, *SIZE, dtype=torch.bool))
    separated = head.view_embedding(3, SIZE)
    torch.testing.assert_close(separated.expand_as(dense), dense, atol=1e-5, rtol=1e-4)


def test_padding_of_tokens() -> None:
    metas = [{'img_shape': (32, 48)}, {'img_shape': [(20, 48), (32, 17), (32, 48)]}]
    padding = padding_of_tokens(metas, 3, (32, 48), (2, 3))
    assert not padding[0].any()
    # The second row of tokens starts at pixel 16 < 20: not yet padding; column 2 starts at 32 > 17.
    assert padding[1, 1].tolist() == [[False, False, True]] * 2
    assert not padding[1, [0, 2]].any()


@pytest.mark.parametrize('shape', [(33, 48), [(32, 48), (32, 64), (32, 48)], [(32, 48)] * 2])
def test_images_that_do_not_fit_are_refused(shape: object) -> None:
    with pytest.raises(ValueError, match='does not fit'):
        padding_of_tokens([{'img_shape': shape}], 3, (32, 48), (2, 3))


def test_bad_calibration_is_refused() -> None:
    good = rig()
    with pytest.raises(KeyError, match='lidar2img'):
        stack_lidar2img([{}], 3)
    with pytest.raises(ValueError, match='missing or listed twice'):
        stack_lidar2img([{'lidar2img': good[:2], 'token': 'abc'}], 3)
    for value in (np.nan, np.inf):
        bad = good.copy()
        bad[1, 0, 3] = value
        with pytest.raises(ValueError, match=r'abc, view 1: lidar2img is not finite'):
            stack_lidar2img([{'lidar2img': bad, 'token': 'abc'}], 3)
    bad = good.copy()
    bad[2] = 0
    with pytest.raises(ValueError, match='not invertible'):
        stack_lidar2img([{'lidar2img': bad}], 3)
