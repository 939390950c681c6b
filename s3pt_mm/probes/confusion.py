"""Confusion counts and the figures made of them, as mmseg's ``IoUMetric`` defines them.

Pixels labelled :data:`IGNORE` are left out; a class that neither ground truth nor prediction has is
NaN and does not enter the means (mmseg's ``nanmean``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3pt_mm.data.class_sets import IGNORE


def confusion_matrix(
    prediction: NDArray, label: NDArray, *, num_classes: int, ignore_index: int = IGNORE
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Args:
        prediction: Predicted classes, any shape, values below ``num_classes``.
        label: True classes, same shape; ``ignore_index`` is left out.
        num_classes: Number of classes C.
        ignore_index: Label that does not count.

    Returns:
        (C, C) counts; rows are true, columns predicted classes.

    Raises:
        ValueError: Shapes differ, or a value lies outside the classes.
    """
    if prediction.shape != label.shape:
        raise ValueError(f'Prediction {prediction.shape} and label {label.shape} differ in shape.')
    keep = label != ignore_index
    true, predicted = label[keep].astype(np.int64), prediction[keep].astype(np.int64)
    for what, values in (('label', true), ('prediction', predicted)):
        outside = values[(values < 0) | (values >= num_classes)]
        if outside.size:
            raise ValueError(
                f'A {what} has the value {outside[0]}, outside 0..{num_classes - 1} '
                f'(ignored value: {ignore_index}).'
            )
    counts = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def scores(confusion: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """mIoU, mAcc, aAcc in percent and the IoU and accuracy of each class.

    Args:
        confusion: (C, C) counts, rows true.
        classes: The C class names.

    Returns:
        ``dict(mIoU, mAcc, aAcc, IoU={class: percent}, Acc={class: percent})``; NaN where undefined.
    """
    hit = np.diag(confusion).astype(np.float64)
    true, predicted = confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid='ignore', divide='ignore'):
        iou = 100 * hit / (true + predicted - hit)
        acc = 100 * hit / true
        all_acc = 100 * hit.sum() / confusion.sum()
    return dict(
        mIoU=_nanmean(iou),
        mAcc=_nanmean(acc),
        aAcc=float(all_acc),
        IoU={name: float(value) for name, value in zip(classes, iou, strict=True)},
        Acc={name: float(value) for name, value in zip(classes, acc, strict=True)},
    )


def _nanmean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float('nan')
