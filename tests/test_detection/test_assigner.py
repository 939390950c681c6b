from __future__ import annotations

import torch
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData

from .petr_cases import petr_config, scoped


def assigner() -> object:
    return TASK_UTILS.build(scoped(petr_config('vits16').model.pts_bbox_head.assigner))


def matched(scores: torch.Tensor, boxes: torch.Tensor, truth: InstanceData) -> list[int]:
    """Object of each query, counted from 1; 0 is none."""
    ours = assigner()
    out = torch.zeros(len(scores), dtype=torch.long)
    queries, found = ours.match(ours.cost(scores, boxes, truth).numpy())
    out[queries] = torch.as_tensor(found) + 1
    return out.tolist()


def objects(count: int) -> InstanceData:
    return InstanceData(bboxes=torch.randn(count, 10), labels=torch.arange(count) % 3)


def test_each_object_gets_the_query_that_sits_on_it() -> None:
    truth = objects(4)
    order = torch.tensor([5, 2, 7, 0])
    boxes, scores = torch.randn(9, 10) + 20, torch.full((9, 3), -4.0)
    boxes[order] = truth.bboxes
    scores[order, truth.labels] = 4.0
    found = matched(scores, boxes, truth)
    assert [found[query] for query in order] == [1, 2, 3, 4]
    assert sum(one > 0 for one in found) == 4


def test_velocity_does_not_decide() -> None:
    truth = objects(1)
    boxes = truth.bboxes.repeat(2, 1)
    boxes[0, 8:] += 100
    boxes[1, 0] += 1
    assert matched(torch.zeros(2, 3), boxes, truth) == [1, 0]


def test_no_object_and_more_objects_than_queries() -> None:
    scores, boxes = torch.randn(3, 3), torch.randn(3, 10)
    assert matched(scores, boxes, objects(0)) == [0, 0, 0]
    assert min(matched(scores, boxes, objects(5))) > 0


def test_survives_numbers_that_are_not_finite() -> None:
    scores, boxes = torch.randn(6, 3), torch.randn(6, 10)
    scores[0, 0], scores[1, 1] = torch.nan, torch.inf
    boxes[2, 3], boxes[3, 0] = torch.inf, torch.nan
    found = matched(scores, boxes, objects(4))
    assert sorted(one for one in found if one) == [1, 2, 3, 4]


def test_equals_mmdets_matching_layer_by_layer() -> None:
    config = scoped(petr_config('vits16').model.pts_bbox_head.assigner)
    theirs = TASK_UTILS.build({**config, 'type': 'mmdet.HungarianAssigner'})
    truth, scores, boxes = objects(5), torch.randn(3, 12, 4), torch.randn(3, 12, 10)
    ours = assigner()
    costs = ours.cost(scores, boxes, truth)
    for layer in range(3):
        queries = InstanceData(scores=scores[layer], bboxes=boxes[layer])
        wanted = theirs.assign(queries, truth).gt_inds
        rows, columns = ours.match(costs[layer].numpy())
        assert (wanted[rows] - 1).tolist() == columns.tolist()
