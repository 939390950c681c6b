"""Labels of tokens from masks, points and boxes."""

from __future__ import annotations

import numpy as np

from s3pt_mm.probes.token_labels import (
    LabelledPoints,
    from_mask,
    segments_in_boxes,
    segments_of_points,
    token_segments,
)


def test_connected_parts_of_things_are_objects_and_stuff_is_one() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[4:12, 4:12] = mask[4:12, 24:32] = 7
    mask[30:] = 255
    points = from_mask(mask, things=np.array([7]), stride=2)
    assert points.classes.tolist() == [0, 7, 7] and points.objects.tolist() == [1, 2]
    columns, rows = points.uv.astype(int).T
    assert (mask[rows, columns] == points.classes[points.segments]).all()
    assert (points.uv[points.segments == 1] < 12).all() and rows.max() < 30


def test_points_within_reach_are_one_object() -> None:
    points = np.array([[0, 0, 0], [0.5, 0, 0], [1.0, 0, 0], [9, 0, 0], [0.2, 0, 0], [50, 0, 0]])
    labels = np.array([13, 13, 13, 13, 7, 7])
    segments, classes, objects = segments_of_points(points, labels, things=np.array([13]))
    assert len(set(segments[:3])) == 1 and segments[3] != segments[0]
    assert segments[4] == segments[5] and (classes[segments] == labels).all()
    assert sorted(objects) == sorted({segments[0], segments[3]})


def test_boxes_hold_what_lies_inside_in_their_own_frame() -> None:
    # 4 m long, turned by 90 degrees: along y. z is the bottom.
    box = dict(bbox_3d=[10, 0, -1, 4, 2, 1.5, np.pi / 2], bbox_label_3d=3)
    ignored = dict(bbox_3d=[0, 0, 0, 9, 9, 9, 0], bbox_label_3d=-1)
    points = np.array([[10, 1.9, 0], [11.5, 0, 0], [10, 0, -1.1], [10, 0, 0.45], [0, 0, 1]])
    segments, classes, objects = segments_in_boxes(points, [ignored, box], background=99)
    assert segments.tolist() == [1, 0, 0, 1, 0]
    assert classes.tolist() == [99, 3] and objects.tolist() == [1]


def test_a_token_has_the_segment_of_most_of_its_points() -> None:
    uv = np.array([[15, 15], [16, 16], [17, 17], [95, 5], [205, 5]], float)
    points = LabelledPoints(uv, np.array([0, 1, 1, 2, 0]), np.arange(3), np.arange(3))
    boxes, flips = np.array([[0, 0, 100, 100], [10, 10, 20, 20]]), np.array([True, False])
    found = token_segments(points, boxes, flips, side=2).reshape(2, 2, 2)
    assert found[0].tolist() == [[2, 1], [-1, -1]]
    assert found[1].tolist() == [[-1, -1], [-1, 1]]
