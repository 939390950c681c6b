"""One query to one object: Hungarian matching with a cost on scores and 3D box codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MATCHED_CODES = 8
"""The first numbers of a code take part in the matching: all but the velocity (DETR3D, PETR)."""

_LARGE = 1e4


@TASK_UTILS.register_module()
class S3PTBox3DL1Cost(BaseMatchCost):
    """L1 distance between codes without their velocity.

    Args:
        weight: Factor of the cost; PETR: 0.25, as the regression loss.
    """

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, *_: Any, **__: Any
    ) -> Tensor:
        """The cost matrix.

        Args:
            pred_instances: With ``bboxes`` (Q, 10), codes.
            gt_instances: With ``bboxes`` (n, 10), codes.

        Returns:
            (Q, n).
        """
        predicted = pred_instances.bboxes[:, :MATCHED_CODES]
        true = gt_instances.bboxes[:, :MATCHED_CODES]
        return torch.cdist(predicted, true, p=1) * self.weight


@TASK_UTILS.register_module()
class S3PTHungarianAssigner3D:
    """DETR's matching (arXiv 2005.12872) in two halves: costs where the tensors are, then a solver.

    mmdet's ``HungarianAssigner`` does both for one layer of one sample and waits for the device
    each time; apart, the costs of all layers and samples cross to the host together.

    Args:
        match_costs: Configs of mmdet's match costs.
    """

    def __init__(self, match_costs: Sequence[dict]) -> None:
        self.match_costs = [TASK_UTILS.build(cost) for cost in match_costs]

    @torch.no_grad()
    def cost(self, scores: Tensor, codes: Tensor, truth: InstanceData) -> Tensor:
        """Sum of all costs, on the tensors' device.

        Under mixed precision a step may overflow; the gradient scaler then skips it. The matching
        must not end the run before that, so what is not finite is replaced here, and only here:
        the loss still sees it.

        Args:
            scores: (..., classes), logits.
            codes: (..., 10).
            truth: ``labels`` (n,) and ``bboxes`` (n, 10), codes.

        Returns:
            (..., n).
        """
        queries = InstanceData(
            scores=torch.nan_to_num(scores.flatten(0, -2), 0.0, _LARGE, -_LARGE),
            bboxes=torch.nan_to_num(codes.flatten(0, -2), 0.0, _LARGE, -_LARGE),
        )
        # A label that is no class would stop a GPU; whoever calls refuses it once it can be read.
        labels = truth.labels.clamp(0, scores.shape[-1] - 1)
        truth = InstanceData(labels=labels, bboxes=truth.bboxes)
        total = torch.stack([cost(queries, truth) for cost in self.match_costs]).sum(0)
        return total.unflatten(0, scores.shape[:-1])

    @staticmethod
    def match(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cheapest pairs of one layer and sample.

        Args:
            cost: (Q, n).

        Returns:
            Queries and objects, min(Q, n) of each.
        """
        return linear_sum_assignment(cost)
