"""Token positions and depths against dense images of them, which the package avoids."""

import numpy as np
import pytest

from s3pt_mm.data.geometry import bin_depth, check_grid, token_positions

BOX = np.array([37, 12, 137, 92])


def dense_positions(box, flip, size, patch):
    """Mean coordinate of every pixel of every patch, pixel by pixel."""
    x0, y0, x1, y1 = box
    xs = x0 + (np.arange(size) + 0.5) * (x1 - x0) / size
    ys = y0 + (np.arange(size) + 0.5) * (y1 - y0) / size
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)  # (size, size, 2)
    if flip:
        grid = grid[:, ::-1]
    side = size // patch
    return grid.reshape(side, patch, side, patch, 2).mean(axis=(1, 3)).reshape(-1, 2)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize(('size', 'patch'), [(224, 16), (224, 14), (224, 32), (96, 16)])
def test_positions_equal_the_dense_mean(flip, size, patch):
    ours = token_positions(BOX, flip, size=size, patch_size=patch)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, dense_positions(BOX, flip, size, patch), rtol=1e-6)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('log', [False, True])
def test_depth_equals_a_loop_over_points(flip, log):
    points = np.random.RandomState(0).uniform([0, 0, 1], [200, 120, 60], (2000, 3))
    points = points.astype(np.float32)
    size, patch = 64, 16
    depth, has = bin_depth(points, BOX, flip, size=size, patch_size=patch, log=log)
    found = {}
    for u, v, d in points:
        x = (u - BOX[0]) / (BOX[2] - BOX[0]) * size
        y = (v - BOX[1]) / (BOX[3] - BOX[1]) * size
        if not (0 <= x < size and 0 <= y < size):
            continue
        x = size - x if flip else x
        token = int(y // patch) * 4 + min(
            int(np.ceil(x / patch)) - 1 if flip else int(x // patch), 3
        )
        found.setdefault(token, []).append(np.log(d) if log else d)
    assert has.all() and len(found) == 16
    np.testing.assert_allclose(depth, [np.mean(found[t]) for t in range(16)], rtol=1e-5)


def test_a_point_lands_on_the_token_whose_position_it_has():
    """Depth and position agree on where a token is, flipped or not."""
    for flip in (False, True):
        xy = token_positions(BOX, flip, size=96, patch_size=16)
        for token in (0, 5, 17, 35):
            point = np.array([[*xy[token], 9.0]], np.float32)
            depth, has = bin_depth(point, BOX, flip, size=96, patch_size=16)
            assert has.sum() == 1 and has[token] and depth[token] == 9.0


def test_token_without_point_says_so():
    depth, has = bin_depth(np.zeros((0, 3), np.float32), BOX, False, size=96, patch_size=16)
    assert not has.any() and not depth.any()
    assert depth.shape == has.shape == (36,)


def test_patches_must_tile():
    with pytest.raises(ValueError, match=r'14 px.*224|100 px'):
        check_grid(100, 14)
