"""One picture of one sample: boxes over the surround images and in bird's-eye view.

Pure drawing on arrays; the visualiser and its hook are in :mod:`visualization`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[int, int, int]

TRUTH_COLOUR: Colour = (60, 200, 90)
PREDICTION_COLOUR: Colour = (255, 128, 20)
NEAR_PLANE = 0.2
"""Edges are cut at this depth in metres, so that boxes beside the camera do not wrap around."""

MIN_NAMED_HEIGHT = 28
"""Boxes lower than this many pixels carry no name: a row of far objects would be all text."""

# Corner order of LiDARInstance3DBoxes: the first four have the rear x, the last four the front x.
_EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4),
    (0, 4), (1, 5), (2, 6), (3, 7), (4, 6), (5, 7),
)  # fmt: skip
"""Twelve edges and a cross over the front face, so that a picture shows the heading."""

_PLACES = {
    'CAM_FRONT_LEFT': 0, 'CAM_FRONT': 1, 'CAM_FRONT_RIGHT': 2,
    'CAM_BACK_LEFT': 3, 'CAM_BACK': 4, 'CAM_BACK_RIGHT': 5,
}  # fmt: skip
_COLUMNS = 3
_BACKGROUND: Colour = (250, 250, 250)
_INK: Colour = (40, 40, 40)
_GRID: Colour = (205, 205, 205)
_FAINT: Colour = (98, 98, 98)


@dataclass(frozen=True)
class DrawnBoxes:
    """Boxes ready to be drawn.

    Attributes:
        corners: (N, 8, 3) in the LiDAR frame, metres, order of ``LiDARInstance3DBoxes.corners``.
        names: N labels written beside the boxes.
        colour: RGB.
    """

    corners: np.ndarray
    names: Sequence[str]
    colour: Colour


def draw_panel(
    images: Sequence[np.ndarray],
    lidar2img: np.ndarray,
    layers: Sequence[DrawnBoxes],
    *,
    cameras: Sequence[str],
    lidar2ego: np.ndarray,
    title: str = '',
    tile_width: int = 640,
    bev_range: float = 60.0,
) -> np.ndarray:
    """The panel: images in two rows as seen from the vehicle, bird's-eye view at the right.

    Args:
        images: V RGB uint8 images (h, w, 3) of one size.
        lidar2img: (V, 4, 4) for these images.
        layers: Sets of boxes, later ones on top; their names make the legend.
        cameras: V names; nuScenes' six take their natural places, others follow in order.
        lidar2ego: (4, 4), for the bird's-eye view, which has the vehicle's front on top.
        title: Written into the head line.
        tile_width: Width of an image in the panel, pixels.
        bev_range: Half the side of the bird's-eye view, metres.

    Returns:
        (H, W, 3) RGB uint8.
    """
    height, width = images[0].shape[:2]
    scale = tile_width / width
    tile_height = round(height * scale)
    places = _places(cameras)
    rows = max(places) // _COLUMNS + 1
    head = 34
    bev_side = rows * tile_height
    panel = np.full(
        (head + rows * tile_height, _COLUMNS * tile_width + bev_side, 3), _BACKGROUND, np.uint8
    )
    for image, matrix, camera, place in zip(images, lidar2img, cameras, places, strict=True):
        tile = cv2.resize(image, (tile_width, tile_height), interpolation=cv2.INTER_AREA)
        shrink = np.diag([scale, tile_height / height, 1.0, 1.0])
        for layer in layers:
            draw_boxes(tile, shrink @ matrix, layer)
        _text(tile, camera, (8, 20), (255, 255, 255), rim=True)
        top, left = head + place // _COLUMNS * tile_height, place % _COLUMNS * tile_width
        panel[top : top + tile_height, left : left + tile_width] = tile
    panel[head:, _COLUMNS * tile_width :] = draw_bev(
        layers, lidar2ego=lidar2ego, side=bev_side, max_range=bev_range
    )
    _text(panel, title, (10, 23), _INK)
    return panel


def draw_boxes(image: np.ndarray, lidar2img: np.ndarray, layer: DrawnBoxes) -> None:
    """Draws wire frames into an RGB image in place; parts behind the camera are cut off."""
    for corners, name in zip(layer.corners, layer.names, strict=True):
        homogeneous = corners @ lidar2img[:3, :3].T + lidar2img[:3, 3]
        if (homogeneous[:, 2] <= NEAR_PLANE).all():
            continue
        for start, end in _EDGES:
            segment = _cut(homogeneous[start], homogeneous[end])
            if segment is not None:
                _line(image, *segment, layer.colour)
        if name and (homogeneous[:, 2] > NEAR_PLANE).all():
            pixels = homogeneous[:, :2] / homogeneous[:, 2:]
            x, y = pixels.min(axis=0)
            tall = np.ptp(pixels[:, 1]) >= MIN_NAMED_HEIGHT
            if tall and 0 <= x < image.shape[1] and 0 <= y < image.shape[0]:
                place = (int(x), max(int(y) - 3, 10))
                _text(image, name, place, layer.colour, size=0.38, rim=True)


def draw_bev(
    layers: Sequence[DrawnBoxes], *, lidar2ego: np.ndarray, side: int, max_range: float
) -> np.ndarray:
    """Bird's-eye view in the ego frame, front on top, rings every 20 m; (side, side, 3) RGB."""
    canvas = np.full((side, side, 3), (255, 255, 255), np.uint8)
    pixels_per_metre = side / (2 * max_range)

    def to_pixels(points: np.ndarray) -> np.ndarray:
        # Ego x points forward (up in the picture), ego y to the left.
        return side / 2 - points[..., [1, 0]] * pixels_per_metre

    centre = (side // 2, side // 2)
    for ring in np.arange(20, max_range + 1, 20):
        radius = round(ring * pixels_per_metre)
        cv2.circle(canvas, centre, radius, _GRID, 1, cv2.LINE_AA)
        _text(canvas, f'{ring:g} m', (centre[0] + 3, centre[1] - radius + 12), _FAINT, size=0.35)
    ego = np.array([[3.5, 0.9], [3.5, -0.9], [-1.0, -0.9], [-1.0, 0.9]])
    cv2.fillPoly(canvas, [np.round(to_pixels(ego)).astype(np.int32)], _INK, cv2.LINE_AA)
    for layer in layers:
        corners = layer.corners @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
        for box in corners:
            outline = to_pixels(box[[0, 3, 7, 4], :2])
            for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
                _line(canvas, start, end, layer.colour)
            _line(canvas, outline.mean(axis=0), outline[2:].mean(axis=0), layer.colour)
    legend = 18
    for layer in layers:
        word = f'{len(layer.corners)} {_layer_name(layer.colour)}'
        cv2.rectangle(canvas, (8, legend - 9), (20, legend + 1), layer.colour, -1)
        _text(canvas, word, (26, legend), _INK, size=0.42)
        legend += 18
    cv2.rectangle(canvas, (0, 0), (side - 1, side - 1), _GRID, 1)
    return canvas


def _layer_name(colour: Colour) -> str:
    return {TRUTH_COLOUR: 'true', PREDICTION_COLOUR: 'predicted'}.get(colour, 'boxes')


def _places(cameras: Sequence[str]) -> list[int]:
    if set(cameras) <= set(_PLACES):
        return [_PLACES[camera] for camera in cameras]
    return list(range(len(cameras)))


def _cut(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels of a segment of homogeneous image points, cut at the near plane."""
    if start[2] <= NEAR_PLANE and end[2] <= NEAR_PLANE:
        return None
    if start[2] <= NEAR_PLANE:
        start = start + (end - start) * (NEAR_PLANE - start[2]) / (end[2] - start[2])
    elif end[2] <= NEAR_PLANE:
        end = end + (start - end) * (NEAR_PLANE - end[2]) / (start[2] - end[2])
    return start[:2] / start[2], end[:2] / end[2]


def _line(image: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Colour) -> None:
    # Four fractional bits; beyond OpenCV's coordinates nothing of the line is visible anyway.
    points = np.clip(np.round(np.stack([start, end]) * 16), -(2**24), 2**24).astype(int)
    cv2.line(image, tuple(points[0]), tuple(points[1]), colour, 1, cv2.LINE_AA, shift=4)


def _text(
    image: np.ndarray,
    text: str,
    place: tuple[int, int],
    colour: Colour,
    *,
    size: float = 0.5,
    rim: bool = False,
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    if rim:  # readable on any photo
        cv2.putText(image, text, place, font, size, _INK, 3, cv2.LINE_AA)
    cv2.putText(image, text, place, font, size, colour, 1, cv2.LINE_AA)
