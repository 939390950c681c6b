from __future__ import annotations

import torch
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData

from .petr_cases import petr_config, scoped


def assigner() -> object:
    return TASK_UTILS.build(scoped(petr_config('vits16').model.pts_bbox_head.assigner))


def objects(count: int) -> InstanceData:
    return InstanceData(bboxes=torch.randn(count, 10), labels=torch.arange(count) % 3)


def test_each_object_gets_the_query_that_sits_on_it() -> None:
    truth = objects(4)
    order = torch.tensor([5, 2, 7, 0])
    boxes, scores = torch.randn(9, 10) + 20, torch.full((9, 3), -4.0)
    boxes[order] = truth.bboxes
    scores[order, truth.labels] = 4.0
    matched = assigner().assign(InstanceData(scores=scores, bboxes=boxes), truth).gt_inds
    assert matched[order].tolist() == [1, 2, 3, 4]
    assert (matched > 0).sum() == 4


def test_velocity_does_not_decide() -> None:
    truth = objects(1)
    boxes = truth.bboxes.repeat(2, 1)
    boxes[0, 8:] += 100
    boxes[1, 0] += 1
    queries = InstanceData(scores=torch.zeros(2, 3), bboxes=boxes)
    assert assigner().assign(queries, truth).gt_inds.tolist() == [1, 0]


def test_no_object_and_more_objects_than_queries() -> None:
    queries = InstanceData(scores=torch.randn(3, 3), bboxes=torch.randn(3, 10))
    assert assigner().assign(queries, objects(0)).gt_inds.tolist() == [0, 0, 0]
    assert sorted(assigner().assign(queries, objects(5)).gt_inds.tolist())[0] > 0


def test_survives_numbers_that_are_not_finite() -> None:
    scores, boxes = torch.randn(6, 3), torch.randn(6, 10)
    scores[0, 0], scores[1, 1] = torch.nan, torch.inf
    boxes[2, 3], boxes[3, 0] = torch.inf, torch.nan
    matched = assigner().assign(InstanceData(scores=scores, bboxes=boxes), objects(4)).gt_inds
    assert sorted(matched[matched > 0].tolist()) == [1, 2, 3, 4]
