"""DINO (arXiv 2104.14294): self-distillation of class tokens over many crops."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from s3pt_mm.method import distributed
from s3pt_mm.method.algorithms.teacher_student import TeacherStudent


@MODELS.register_module(name='S3PTDINO')
class DINO(TeacherStudent):
    """Image-level baseline: two global views for the teacher, all crops for the student.

    Set the head's ``with_objects=False``: there is no object level. The registered name is
    ``S3PTDINO``, since mmpretrain's projects claim ``DINO``.
    """

    def loss(
        self, inputs: list[Tensor], data_samples: list | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """One step's losses.

        Args:
            inputs: Crops, each (B, 3, h, w): two global views first, then any number of local ones.
        """
        self.begin_step()
        batches = distributed.start_sizes(len(inputs[0]), inputs[0].device)
        with torch.no_grad():
            teacher_classes, _ = self.encode(self.teacher, torch.cat(inputs[:2]))
        # One forward a resolution: crops of equal size share a batch.
        groups = [inputs[:2], inputs[2:]] if len(inputs) > 2 else [inputs]
        classes = [self.encode(self.student, torch.cat(group))[0] for group in groups]
        student = self.student['head'](torch.cat(classes))
        with torch.no_grad():
            teacher = self.teacher['head'](teacher_classes)
        return self.image_loss(student, teacher, len(inputs), batches=batches())
