"""Surface patterns: from texture coordinates to colour, one function for each kind of material."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from s3pt_mm.toydrive import materials as mt
from s3pt_mm.toydrive.street import Street
from s3pt_mm.toydrive.taxonomy import ROAD, SIDEWALK, TERRAIN

_NOISE_SIZE = 512


@lru_cache(maxsize=1)
def _noise_image() -> np.ndarray:
    """A tileable cloud-like texture in [0, 1], mean 0.5: three octaves of smoothed noise."""
    rng = np.random.default_rng(20241)
    total = np.zeros((_NOISE_SIZE, _NOISE_SIZE), np.float32)
    for cells, weight in ((32, 0.4), (128, 0.35), (512, 0.25)):
        grid = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
        grid = np.pad(grid, 2, mode='wrap')
        factor = _NOISE_SIZE // cells
        big = cv2.resize(grid, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        edge = 2 * factor
        total += weight * big[edge : edge + _NOISE_SIZE, edge : edge + _NOISE_SIZE]
    total = (total - total.mean()) / total.std()
    return np.clip(0.5 + 0.22 * total, 0, 1).astype(np.float32)


def noise(u: np.ndarray, v: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Noise (R,) in [0, 1] at coordinates (R,) in metres; features of about ``scale`` metres."""
    if len(u) == 0:
        return np.zeros(0, np.float32)
    factor = 12.0 / np.asarray(scale)
    columns = 1024
    rows = -(-len(u) // columns)
    maps = np.zeros((2, rows * columns), np.float32)
    maps[0, : len(u)] = np.mod(u * factor, _NOISE_SIZE)
    maps[1, : len(v)] = np.mod(v * factor, _NOISE_SIZE)
    out = cv2.remap(
        _noise_image(), maps[0].reshape(rows, columns), maps[1].reshape(rows, columns),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP,
    )  # fmt: skip
    return out.reshape(-1)[: len(u)]


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + (b - a) * share[:, None]


def _detail(footprint: np.ndarray, period: np.ndarray) -> np.ndarray:
    """1 where a pattern is resolved, 0 where its period is below two pixels."""
    return np.clip(2.0 - 4.0 * footprint / np.maximum(period, 1e-3), 0.0, 1.0)


def _line(offset: np.ndarray, half_width: float, footprint: np.ndarray) -> np.ndarray:
    """Coverage of a painted line, blurred over a pixel."""
    return np.clip((half_width - np.abs(offset)) / np.maximum(footprint, 0.01) + 0.5, 0.0, 1.0) * (
        np.minimum(1.0, 2 * half_width / np.maximum(footprint, 1e-3))
    )


def stripes(rows: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Bands of two colours at the material's angle."""
    period = 2 * rows[:, mt.SCALE]
    phase = (u * np.cos(rows[:, mt.A]) + v * np.sin(rows[:, mt.A])) / period
    band = (np.mod(phase, 1.0) < rows[:, mt.B]).astype(np.float32)
    share = rows[:, mt.B] + (band - rows[:, mt.B]) * _detail(footprint, period)
    return _mix(rows[:, mt.RGB1], rows[:, mt.RGB2], share)


def patches(rows: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Two colours in irregular patches."""
    salt = rows[:, mt.SALT]
    value = noise(u + salt, v + salt, rows[:, mt.SCALE])
    share = np.clip((value - 0.5) * 12 + 0.5, 0, 1)
    return _mix(rows[:, mt.RGB1], rows[:, mt.RGB2], share)


def foliage(rows: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Leaves in light and shadow."""
    salt = rows[:, mt.SALT]
    value = 0.5 * noise(u + salt, v, rows[:, mt.SCALE]) + 0.5 * noise(v, u + salt, 0.3)
    share = np.clip((0.62 - value) * 4, 0, 1)
    return _mix(1.25 * rows[:, mt.RGB1], rows[:, mt.RGB2], share)


def bricks(rows: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """Courses of stones with joints."""
    scale = rows[:, mt.SCALE]
    course = np.floor(v / (0.5 * scale))
    along = u / scale + 0.5 * np.mod(course, 2)
    joint = (np.mod(along, 1.0) < 0.06) | (np.mod(v / (0.5 * scale), 1.0) < 0.12)
    tone = np.mod(np.sin(np.floor(along) * 12.9898 + course * 78.233) * 43758.547, 1.0)
    share = np.where(joint, 0.6, 0.35 * tone * rows[:, mt.A])
    return _mix(rows[:, mt.RGB1], rows[:, mt.RGB2], 0.2 + (share - 0.2) * _detail(footprint, scale))


def facade(
    rows: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A wall with rows of windows.

    Returns:
        Colour (R, 3), share of glass (R,) and a number in [0, 1) that is the same over one window
        (which decides whether it is lit at night).
    """
    width, height, share = rows[:, mt.SCALE], rows[:, mt.A], rows[:, mt.B]
    column, floor = (u + rows[:, mt.SALT]) / width, v / height
    x, z = np.mod(column, 1.0) - 0.5, np.mod(floor, 1.0)
    inside = (np.abs(x) < share / 2) & (z > 0.3) & (z < 0.82) & (v > 0.5)
    frame = inside & ((np.abs(x) > share / 2 - 0.03) | (np.abs(x) < 0.015) | (z > 0.79))
    pane = np.mod(np.sin(np.floor(column) * 91.17 + np.floor(floor) * 47.3) * 5231.7, 1.0)
    fine = _detail(footprint, width)
    glass = np.where(inside & ~frame, 1.0, 0.0)
    glass = 0.52 * share + (glass - 0.52 * share) * fine
    dark = np.float32([0.04, 0.05, 0.06]) * (0.6 + 1.2 * pane[:, None])
    wall = np.where((frame & (fine > 0.3))[:, None], rows[:, mt.RGB2], rows[:, mt.RGB1])
    return _mix(wall, dark, glass), glass, pane


def ground(
    street: Street,
    table: np.ndarray,
    first: int,
    xy: np.ndarray,
    footprint: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (R, 3) and Cityscapes label (R,) of the ground at world points (R, 2).

    ``first`` is the road's material; pavement and terrain follow it in the table.
    """
    s, d = street.to_street(xy[:, 0], xy[:, 1])
    s, d = s.astype(np.float32), d.astype(np.float32)
    label = street.surface(s, d)
    along = street.crossing_distance(s).astype(np.float32)
    fine, coarse = noise(s, d, 0.35), noise(s, d, 6.0)
    colour = np.empty((len(s), 3), np.float32)

    road = label == ROAD
    tone = 0.65 + 0.35 * fine[road] + 0.45 * coarse[road]
    base = table[first, mt.RGB1] * tone[:, None]
    paint = _markings(street, s[road], d[road], along[road], footprint[road])
    worn = np.clip(1.15 - 0.6 * fine[road], 0.3, 1.0)
    colour[road] = _mix(base, np.broadcast_to(table[first, mt.RGB2], base.shape), paint * worn)

    walk = label == SIDEWALK
    slab = table[first + 1, mt.SCALE]
    joint = np.maximum(
        _line(np.mod(s[walk], slab) - slab / 2, 0.015, footprint[walk]),
        _line(np.mod(d[walk], slab) - slab / 2, 0.015, footprint[walk]),
    )
    tile = np.mod(
        np.sin(np.floor(s[walk] / slab) * 17.3 + np.floor(d[walk] / slab) * 59.1) * 971.3, 1
    )
    tone = 0.7 + 0.25 * fine[walk] + 0.2 * coarse[walk] + 0.18 * tile
    kerb = np.abs(np.abs(d[walk]) - street.half - 0.1) < 0.1
    plain = np.where(kerb[:, None], table[first + 1, mt.RGB2] * 1.2, table[first + 1, mt.RGB1])
    colour[walk] = plain * tone[:, None] * (1 - 0.5 * joint[:, None])

    soil = label == TERRAIN
    share = np.clip(2.2 * (coarse[soil] - 0.35) + 0.8 * (fine[soil] - 0.5), 0, 1)
    mixed = _mix(
        np.broadcast_to(table[first + 2, mt.RGB1], (soil.sum(), 3)),
        np.broadcast_to(table[first + 2, mt.RGB2], (soil.sum(), 3)),
        share,
    )
    colour[soil] = mixed * (0.6 + 0.8 * noise(s[soil] * 1.7, d[soil], 0.15))[:, None]
    return colour, label


def _markings(
    street: Street, s: np.ndarray, d: np.ndarray, along: np.ndarray, footprint: np.ndarray
) -> np.ndarray:
    """Coverage (R,) of road paint: lines along the lanes, parking bays, zebras, stop lines."""
    blur = 1.5 * footprint
    side = np.abs(d)
    open_road = np.clip((along - street.crossing_half - 5.0) * 2, 0, 1)
    paint = _line(side - 0.12, 0.06, blur)
    dashes = (np.mod(s, 9.0) < 3.6).astype(np.float32)
    for lane in range(1, street.lanes):
        paint = np.maximum(paint, dashes * _line(side - lane * street.lane_width, 0.06, blur))
    inner = street.lanes * street.lane_width
    paint = np.maximum(paint, _line(side - inner, 0.07, blur))
    bays = (np.mod(s, 6.0) < 0.12) & (side > inner + street.cycle_width)
    paint = np.maximum(paint, _line(side - inner - street.cycle_width, 0.05, blur))
    paint = np.maximum(paint, bays * np.minimum(1.0, 0.12 / np.maximum(blur, 1e-3))) * open_road
    near = along - street.crossing_half
    on_street = side < street.half - 0.3
    zebra = on_street & (near > 0.8) & (near < 3.6)
    bars = np.where(blur < 0.5, (np.mod(d, 1.0) < 0.5).astype(np.float32), 0.5)
    stop = on_street & (near > 4.4) & (near < 4.8)
    return np.maximum(paint, np.where(zebra, bars, 0.0) + np.where(stop, 1.0, 0.0))
