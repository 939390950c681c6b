"""Image-level term: class tokens of student crops against the teacher's global views."""

from __future__ import annotations

import torch
from torch import Tensor

from s3pt_mm.method.losses.target import Target


def image_target(teacher: Tensor, *, num_crops: int, global_batch: int, ranks: int = 1) -> Target:
    """Pair every student crop with every teacher global view but its own (DINO, eq. 3).

    Student rows are crop-major, row ``crop * B + image``; crops 0 and 1 are the global views that
    the teacher sees too.

    Args:
        teacher: (2 B, P) centred and sharpened probabilities, view-major.
        num_crops: Crops of an image that the student sees, at least 2.
        global_batch: Images of this step over all ranks.
        ranks: World size; DDP averages gradients, hence the factor in the coefficients.

    Returns:
        A target whose cross-entropies, summed with their coefficients, are the mean over the
        ``2 * num_crops - 2`` pairs and all images.

    Raises:
        ValueError: If ``num_crops`` is below 2 or the teacher's rows are not two views.
    """
    rows = len(teacher)
    if num_crops < 2 or rows % 2:
        raise ValueError(
            'need two global views and at least 2 crops, '
            f'got {rows} teacher rows, {num_crops} crops'
        )
    batch = rows // 2
    crop, view = torch.meshgrid(torch.arange(num_crops), torch.arange(2), indexing='ij')
    pairs = torch.stack([crop, view], dim=-1)[crop != view]
    image = torch.arange(batch)
    student_rows = (pairs[:, :1] * batch + image).flatten()
    teacher_rows = (pairs[:, 1:] * batch + image).flatten()
    weight = ranks / (len(pairs) * max(global_batch, 1))
    coefficients = teacher.new_full((len(student_rows),), weight)
    return Target(teacher, student_rows, coefficients, teacher_rows)
