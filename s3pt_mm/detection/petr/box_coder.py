"""Boxes as PETR regresses them, and back.

A box is (x, y, z, length, width, height, yaw, vx, vy) in LiDAR coordinates: metres, radians, metres
per second, z at the *centre of gravity*. Its code, ten numbers, is

    (x, y, log length, log width, z, log height, sin a, cos a, vx, vy),   a = -yaw - pi / 2.

The angle a is the yaw of mmdet3d before version 1.0, in which DETR3D and PETR were published; the
published checkpoint keeps it, so this package does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

CODE_SIZE = 10
BOX_SIZE = 9


def encode_boxes(boxes: Tensor) -> Tensor:
    """Codes of boxes.

    Args:
        boxes: (..., 9), z at the centre of gravity.

    Returns:
        (..., 10).

    Raises:
        ValueError: The boxes have no velocity or another size.
    """
    if boxes.shape[-1] != BOX_SIZE:
        raise ValueError(
            f'PETR needs boxes with velocity, {BOX_SIZE} numbers each, got {boxes.shape[-1]}; '
            'create the info file with velocities (s3pt-data nuscenes does) and load '
            'it with `with_velocity=True`, the default of the nuScenes dataset'
        )
    x, y, z, length, width, height, yaw, vx, vy = boxes.unbind(-1)
    angle = -yaw - math.pi / 2
    return torch.stack(
        (x, y, length.log(), width.log(), z, height.log(), angle.sin(), angle.cos(), vx, vy), -1
    )


def decode_boxes(codes: Tensor) -> Tensor:
    """Boxes of codes, the inverse of :func:`encode_boxes`.

    Args:
        codes: (..., 10). Sine and cosine need not have norm 1.

    Returns:
        (..., 9); yaw in [-pi, pi).
    """
    x, y, length, width, z, height, sine, cosine, vx, vy = codes.unbind(-1)
    yaw = -torch.atan2(sine, cosine) - math.pi / 2
    yaw = torch.remainder(yaw + math.pi, 2 * math.pi) - math.pi
    return torch.stack((x, y, z, length.exp(), width.exp(), height.exp(), yaw, vx, vy), -1)


@TASK_UTILS.register_module()
class S3PTNMSFreeCoder(BaseBBoxCoder):
    """Turns the queries of the last decoder layer into boxes, without non-maximum suppression.

    The set loss already asks for one query an object, so the best (query, class) pairs are the
    result; one query may appear under two classes (Deformable DETR, arXiv 2010.04159).

    Args:
        post_center_range: (x0, y0, z0, x1, y1, z1) metres; boxes whose centre lies outside are
            dropped.
        max_num: Boxes kept per sample before the range is applied.
        score_threshold: Boxes at or below it are dropped; None keeps all, as nuScenes' AP wants.
    """

    def __init__(
        self,
        *,
        post_center_range: Sequence[float],
        max_num: int = 300,
        score_threshold: float | None = None,
    ) -> None:
        super().__init__()
        if len(post_center_range) != 6:
            raise ValueError(f'post_center_range needs 6 numbers, got {post_center_range}')
        self.post_center_range = tuple(post_center_range)
        self.max_num = max_num
        self.score_threshold = score_threshold

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor | None = None) -> Tensor:
        """See :func:`encode_boxes`; ``gt_bboxes`` is of the host's signature and unused."""
        return encode_boxes(bboxes)

    def decode(self, cls_scores: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes of one sample, best first.

        Args:
            cls_scores: (Q, classes) logits.
            codes: (Q, 10).

        Returns:
            Boxes (n, 9) with z at the centre of gravity, scores (n,), labels (n,).
        """
        num_classes = cls_scores.shape[-1]
        scores, index = cls_scores.sigmoid().flatten().topk(min(self.max_num, cls_scores.numel()))
        boxes = decode_boxes(codes[index // num_classes])
        low, high = boxes.new_tensor(self.post_center_range).view(2, 3)
        keep = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(-1)
        if self.score_threshold is not None:
            keep &= scores > self.score_threshold
        return boxes[keep], scores[keep], (index % num_classes)[keep]
