"""PETR's set loss: matching, focal loss on classes, L1 on codes, after every decoder layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from s3pt_mm.detection.petr.box_coder import encode_boxes


class SetLoss(nn.Module):
    """Matches each layer's queries to the objects and sums their losses (DETR, arXiv 2005.12872).

    A query without object is background in every class and has no box loss. Both losses are divided
    by the number of objects in the batch of this rank, at least 1, as in PETR's code.

    All layers and samples are matched and summed together: the host waits for the device once a
    step.

    Args:
        num_classes: Classes; also the label of background.
        assigner: Config of the assigner.
        loss_cls: Config of the classification loss.
        loss_bbox: Config of the regression loss.
    """

    def __init__(
        self, *, num_classes: int, assigner: dict, loss_cls: dict, loss_bbox: dict
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_bbox = MODELS.build(loss_bbox)

    def forward(
        self,
        *,
        all_cls_scores: Tensor,
        all_bbox_preds: Tensor,
        instances: Sequence[InstanceData],
        code_weights: Tensor,
    ) -> dict[str, Tensor]:
        """The losses, float32.

        Args:
            all_cls_scores: (layers, B, Q, classes), logits.
            all_bbox_preds: (layers, B, Q, 10), codes.
            instances: Of each sample, ``bboxes_3d`` and ``labels_3d``; may be empty.
            code_weights: (10,).

        Returns:
            ``loss_cls`` and ``loss_bbox`` of the last layer, ``d<i>.loss_cls`` and
            ``d<i>.loss_bbox`` of the others.

        Raises:
            ValueError: A centre, size or yaw is not finite, a size is not positive, a label is no
                class, or the boxes have no velocity. A velocity that is not finite is allowed: the
                dataset does not know it, and it is left out of the loss.
        """
        truth = [self._truth(one) for one in instances]
        layers = len(all_cls_scores)
        query, true = self._match(all_cls_scores, all_bbox_preds, truth)
        num_objects = max(query.shape[1], 1)

        labels = torch.full_like(all_cls_scores[..., 0], self.num_classes, dtype=torch.long)
        labels.view(-1)[query] = torch.cat([one.labels for one in truth])[true]
        classes = F.one_hot(labels.flatten(), self.num_classes + 1)[:, : self.num_classes]
        by_class = self.loss_cls(
            all_cls_scores.flatten(0, 2), classes, reduction_override='none'
        ).view(layers, -1)

        wanted = torch.cat([one.bboxes for one in truth])[true]  # (layers, objects, 10)
        predicted = all_bbox_preds.flatten(0, 2)[query]
        by_box = predicted
        if wanted.numel():  # mmdet's L1 of nothing is a scalar, and with weights it waits
            by_box = self.loss_bbox(
                predicted, wanted.nan_to_num(0.0, 0.0, 0.0), reduction_override='none'
            )
            by_box = by_box * (torch.isfinite(wanted) * code_weights)
        both = zip(by_class.sum(1) / num_objects, by_box.sum((1, 2)) / num_objects, strict=True)
        losses = {}
        for layer, (loss_cls, loss_bbox) in enumerate(both):
            prefix = '' if layer == layers - 1 else f'd{layer}.'
            losses[f'{prefix}loss_cls'] = loss_cls
            losses[f'{prefix}loss_bbox'] = loss_bbox
        return losses

    @staticmethod
    def _truth(instances: InstanceData) -> InstanceData:
        """``boxes`` (n, 9) about their centre, codes ``bboxes`` (n, 10), ``labels`` (n,)."""
        boxes, labels = instances.bboxes_3d, instances.labels_3d
        boxes = torch.cat((boxes.gravity_center, boxes.tensor[:, 3:]), -1)
        boxes = boxes.to(labels.device, non_blocking=True).float()
        return InstanceData(boxes=boxes, bboxes=encode_boxes(boxes), labels=labels)

    def _match(
        self, scores: Tensor, codes: Tensor, truth: Sequence[InstanceData]
    ) -> tuple[Tensor, Tensor]:
        """Which query of each layer stands for which object; the step's one wait for the device.

        Returns:
            Two (layers, objects matched) int64: places in the flattened (layers, B, Q), and in
            all samples' objects one after the other.
        """
        layers, _, num_queries, _ = scores.shape
        costs = [
            self.assigner.cost(scores[:, index], codes[:, index], one)
            for index, one in enumerate(truth)
        ]
        bad = [self._bad_boxes(one.boxes) for one in truth]
        wrong = [(one.labels < 0) | (one.labels >= self.num_classes) for one in truth]
        sizes = [part.numel() for part in (*costs, *bad, *wrong)]
        on_device = torch.cat([part.flatten().float() for part in (*costs, *bad, *wrong)])
        parts = np.split(on_device.cpu().numpy(), np.cumsum(sizes)[:-1])
        self._refuse(truth, parts[len(truth) : 2 * len(truth)], parts[2 * len(truth) :])

        pairs, first = [], 0
        for index, (one, cost) in enumerate(zip(truth, parts, strict=False)):
            cost = cost.reshape(layers, num_queries, len(one.labels))
            matched = np.stack([self.assigner.match(of_layer) for of_layer in cost])
            start = (np.arange(layers)[:, None] * len(truth) + index) * num_queries
            pairs.append(np.stack([matched[:, 0] + start, matched[:, 1] + first]))
            first += len(one.labels)
        index = torch.from_numpy(np.concatenate(pairs, axis=2))
        return tuple(index.to(scores.device, non_blocking=True))

    @staticmethod
    def _bad_boxes(boxes: Tensor) -> Tensor:
        """(n,) bool: a centre, size or yaw that is not finite, or a size that is not positive."""
        return ~torch.isfinite(boxes[:, :7]).all(-1) | (boxes[:, 3:6] <= 0).any(-1)

    def _refuse(
        self, truth: Sequence[InstanceData], bad: list[np.ndarray], wrong: list[np.ndarray]
    ) -> None:
        for index, (one, boxes, labels) in enumerate(zip(truth, bad, wrong, strict=True)):
            if boxes.any():
                raise ValueError(
                    f'sample {index} of the batch: {int(boxes.sum())} true boxes have no positive '
                    f'finite size or place, the first is {one.boxes[int(boxes.argmax())].tolist()};'
                    " SurroundNuScenesDataset drops such boxes (bad_boxes='drop')"
                )
            if labels.any():
                raise ValueError(
                    f'sample {index} of the batch: label {int(one.labels[int(labels.argmax())])} '
                    f'is none of the {self.num_classes} classes; put ObjectNameFilter into the '
                    'pipeline'
                )
