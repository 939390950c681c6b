"""PETR's set loss: matching, focal loss on classes, L1 on codes, after every decoder layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet3d.registry import MODELS, TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from s3pt_mm.detection.petr.box_coder import encode_boxes


class SetLoss(nn.Module):
    """Matches each layer's queries to the objects and sums their losses (DETR, arXiv 2005.12872).

    A query without object is background in every class and has no box loss. Both losses are divided
    by the number of objects in the batch of this rank, at least 1, as in PETR's code.

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
            ValueError: A box or a label is unusable; see :meth:`targets`.
        """
        targets = [self.targets(i, one) for i, one in enumerate(instances)]
        losses = {}
        last = len(all_cls_scores) - 1
        outputs = zip(all_cls_scores, all_bbox_preds, strict=True)
        for layer, (scores, codes) in enumerate(outputs):
            prefix = '' if layer == last else f'd{layer}.'
            loss_cls, loss_bbox = self._layer(scores, codes, targets, code_weights)
            losses[f'{prefix}loss_cls'] = loss_cls
            losses[f'{prefix}loss_bbox'] = loss_bbox
        return losses

    def targets(self, index: int, instances: InstanceData) -> InstanceData:
        """Codes and labels of a sample's objects.

        Args:
            index: The sample's place in the batch, for messages.
            instances: ``bboxes_3d`` and ``labels_3d`` (n,).

        Returns:
            ``bboxes`` (n, 10) and ``labels`` (n,).

        Raises:
            ValueError: A centre, size or yaw is not finite, a size is not positive, a label is no
                class, or the boxes have no velocity. A velocity that is not finite is allowed: the
                dataset does not know it, and it is left out of the loss.
        """
        boxes, labels = instances.bboxes_3d, instances.labels_3d
        boxes = torch.cat((boxes.gravity_center, boxes.tensor[:, 3:]), -1).to(labels.device).float()
        bad = ~torch.isfinite(boxes[:, :7]).all(-1) | (boxes[:, 3:6] <= 0).any(-1)
        if bad.any():
            raise ValueError(
                f'sample {index} of the batch: {int(bad.sum())} true boxes have no positive finite '
                f'size or place, the first is {boxes[bad][0].tolist()}; SurroundNuScenesDataset '
                "drops such boxes (bad_boxes='drop')"
            )
        wrong = (labels < 0) | (labels >= self.num_classes)
        if wrong.any():
            raise ValueError(
                f'sample {index} of the batch: label {int(labels[wrong][0])} is none of the '
                f'{self.num_classes} classes; put ObjectNameFilter into the pipeline'
            )
        return InstanceData(bboxes=encode_boxes(boxes), labels=labels)

    def _layer(
        self,
        scores: Tensor,
        codes: Tensor,
        targets: Sequence[InstanceData],
        code_weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Both losses of a layer: scores (B, Q, classes), codes (B, Q, 10)."""
        labels = scores.new_full(scores.shape[:2], self.num_classes, dtype=torch.long)
        predicted, wanted = [], []
        for index, target in enumerate(targets):
            queries = InstanceData(scores=scores[index].detach(), bboxes=codes[index].detach())
            matched = self.assigner.assign(queries, target).gt_inds
            rows = matched.nonzero().squeeze(1)
            objects = matched[rows] - 1
            labels[index, rows] = target.labels[objects]
            predicted.append(codes[index, rows])
            wanted.append(target.bboxes[objects])
        num_objects = max(sum(map(len, wanted)), 1)
        loss_cls = self.loss_cls(
            scores.flatten(0, 1),
            labels.flatten(),
            scores.new_ones(labels.numel()),
            avg_factor=num_objects,
        )
        wanted = torch.cat(wanted)
        known = torch.isfinite(wanted)
        loss_bbox = self.loss_bbox(
            torch.cat(predicted),
            wanted.nan_to_num(0.0, 0.0, 0.0),
            known * code_weights,
            avg_factor=num_objects,
        )
        return loss_cls, loss_bbox
