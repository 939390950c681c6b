"""One query to one object: mmdet's Hungarian matching with a cost on 3D box codes."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
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
class S3PTHungarianAssigner3D(HungarianAssigner):
    """mmdet's ``HungarianAssigner`` that survives a step with numbers that are not finite.

    Under mixed precision a step may overflow; the gradient scaler then skips it. The assignment
    must not end the run before that, so what is not finite is replaced for the matching alone: the
    loss still sees it.
    """

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Matches; arguments and result are the parent's.

        Args:
            pred_instances: ``scores`` (Q, classes) logits and ``bboxes`` (Q, 10) codes.
            gt_instances: ``labels`` (n,) and ``bboxes`` (n, 10) codes.
            img_meta: Unused.
            kwargs: Passed on.
        """
        finite = InstanceData(
            scores=torch.nan_to_num(pred_instances.scores, 0.0, _LARGE, -_LARGE),
            bboxes=torch.nan_to_num(pred_instances.bboxes, 0.0, _LARGE, -_LARGE),
        )
        return super().assign(finite, gt_instances, img_meta, **kwargs)
