"""Labels of tokens: from points of a sweep, from boxes around them, or from a mask.

Every source becomes the same thing, labelled points of an image; a token's label is that of most
of the points within its footprint, as its depth is their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from s3pt_mm.data.geometry import transform_points
from s3pt_mm.probes.cluster_quality import UNLABELLED


@dataclass(frozen=True)
class LabelledPoints:
    """Points of one image.

    Attributes:
        uv: (M, 2) source pixels.
        segments: (M,) int64 numbers: one an object, one a class without objects.
        classes: class of each segment, by its number.
        objects: numbers of the segments that are objects.
    """

    uv: np.ndarray
    segments: np.ndarray
    classes: np.ndarray
    objects: np.ndarray


def from_mask(mask: np.ndarray, things: np.ndarray, stride: int = 4) -> LabelledPoints:
    """Every ``stride``-th pixel of a label map; connected parts of a thing class are objects.

    Args:
        mask: (H, W) class ids, 255 where unlabelled.
        things: classes that have objects.
        stride: pixels.
    """
    segments = np.full(mask.shape, UNLABELLED, np.int64)
    classes: list[int] = []
    objects: list[int] = []
    for label in np.unique(mask[mask != 255]):
        parts, numbers = 1, (mask == label).astype(np.int32)
        if label in things:
            parts, numbers = cv2.connectedComponents((mask == label).astype(np.uint8))
            parts -= 1
            objects += range(len(classes), len(classes) + parts)
        segments[numbers > 0] = len(classes) + numbers[numbers > 0] - 1
        classes += [label] * parts
    start = stride // 2
    grid = segments[start::stride, start::stride]
    v, u = np.nonzero(grid != UNLABELLED)
    uv = np.stack([u, v], 1) * stride + start + 0.5
    return LabelledPoints(uv, grid[v, u], np.array(classes, np.int64), np.array(objects, np.int64))


def segments_of_points(
    points: np.ndarray, labels: np.ndarray, things: np.ndarray, reach: float = 0.8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects of a labelled sweep: points of a thing class that lie within reach of each other.

    Args:
        points: (M, 3) metres.
        labels: (M,) class of each point.
        things: classes that have objects.
        reach: metres.

    Returns:
        (M,) segment of each point, class of each segment, and which segments are objects.
    """
    segments = np.empty(len(points), np.int64)
    classes: list[int] = []
    objects: list[int] = []
    for label in np.unique(labels):
        here = np.flatnonzero(labels == label)
        count, part = 1, np.zeros(len(here), np.int64)
        if label in things:
            pairs = cKDTree(points[here]).query_pairs(reach, output_type='ndarray')
            shape = (len(here), len(here))
            graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)
            count, part = connected_components(graph, directed=False)
            objects += range(len(classes), len(classes) + count)
        segments[here] = len(classes) + part
        classes += [label] * count
    return segments, np.array(classes, np.int64), np.array(objects, np.int64)


def segments_in_boxes(
    points: np.ndarray, instances: list[dict[str, Any]], background: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from an info file's boxes ``bbox_3d`` (x, y, z, l, w, h, yaw), z at the bottom.

    Points in no box are the class ``background``, one segment without objects.
    """
    segments, classes = np.zeros(len(points), np.int64), [background]
    for instance in instances:
        if instance['bbox_label_3d'] < 0:
            continue
        x, y, z, length, width, height, yaw = np.asarray(instance['bbox_3d'], np.float64)[:7]
        to_box = np.eye(4)
        cos, sin = np.cos(yaw), np.sin(yaw)
        to_box[:2, :2] = [[cos, sin], [-sin, cos]]
        to_box[:3, 3] = -to_box[:3, :3] @ [x, y, z + height / 2]
        local = np.abs(transform_points(points.astype(np.float64), to_box))
        # A little of the road belongs to nobody.
        segments[(local <= np.array([length, width, height]) / 2).all(1)] = len(classes)
        classes.append(instance['bbox_label_3d'])
    return segments, np.array(classes, np.int64), np.arange(1, len(classes))


def token_segments(
    points: LabelledPoints, boxes: np.ndarray, flips: np.ndarray, side: int
) -> np.ndarray:
    """(2, N) segment that most points of each token belong to; ``UNLABELLED`` without points.

    Args:
        points: Of the whole image.
        boxes: (2, 4) x0, y0, x1, y1 of each view, source pixels.
        flips: (2,) bool.
        side: tokens along a side of a view.
    """
    result = np.full((2, side * side), UNLABELLED, np.int64)
    for view, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, np.float64)[:2]):
        column = np.floor((points.uv[:, 0] - x0) * side / (x1 - x0)).astype(np.int64)
        row = np.floor((points.uv[:, 1] - y0) * side / (y1 - y0)).astype(np.int64)
        inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        column = np.where(flips[view], side - 1 - column, column)
        token, segment = (row * side + column)[inside], points.segments[inside]
        counts = np.zeros((side * side, len(points.classes)), np.int64)
        np.add.at(counts, (token, segment), 1)
        seen = counts.any(1)
        result[view, seen] = counts[seen].argmax(1)
    return result
