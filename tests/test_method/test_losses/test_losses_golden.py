"""Losses, centres and the vMF normaliser against golden numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from s3pt_mm.method.losses import (
    Center,
    PrototypeLogits,
    Target,
    cross_image_target,
    cross_view_target,
    image_target,
    sliced_cross_entropy,
    vmf_log_normalizer,
)
from tests.golden_cases import assert_detects_shift, compare, golden_cases, load


def factored(logits: Tensor, temperature: float) -> PrototypeLogits:
    """Given logits as products with an identity: the losses take features and prototypes."""
    return PrototypeLogits(logits, torch.eye(logits.shape[1]), temperature)


def centred_image_target(teacher: PrototypeLogits, shift: Tensor, crops: int) -> Target:
    probabilities = torch.softmax(teacher.dense() - shift, dim=1)
    return image_target(probabilities, num_crops=crops, global_batch=len(probabilities) // 2)


def make_center(value: np.ndarray, momentum: float) -> Center:
    center = Center(value.size, space='logit', momentum=momentum)
    center.value.copy_(torch.from_numpy(value).flatten())
    return center


@pytest.mark.parametrize('slice_rows', [3, 64])
@pytest.mark.parametrize('path', golden_cases('losses*.npz'))
def test_cribo_losses(path: Path, slice_rows: int) -> None:
    case = load(path)
    arrays = {name: torch.from_numpy(np.asarray(value)) for name, value in case.items()}
    tau, student_tau = float(case['teacher_temp']), float(case['student_temp'])
    momentum = float(case['center_momentum'])
    options = dict(slice_rows=slice_rows)

    center = make_center(case['center_before'], momentum)
    teacher = factored(arrays['teacher_cls_logits'], tau)
    target = centred_image_target(teacher, center.shift(tau), 2)
    student = factored(arrays['student_cls_logits'], student_tau)
    actual = dict(loss_cls=sliced_cross_entropy(student, [target], **options).loss)
    center.observe(teacher)
    center.commit()
    actual['center_after'] = center.value[None]

    center = make_center(case['center_c_before'], momentum)
    shift = center.shift(tau)
    teacher = factored(arrays['teacher_centroid_logits'], tau)
    masks = arrays['cycle_mask_view1'], arrays['cycle_mask_view2']
    neighbours = torch.cat(
        [arrays[f'teacher_neighbour_logits_view{view + 1}'][masks[view]] for view in (0, 1)]
    )
    targets = [
        cross_view_target(teacher, shift, global_objects=len(masks[0])),
        cross_image_target(
            factored(neighbours, tau),
            shift,
            consistent_view1=masks[0],
            consistent_view2=masks[1],
            global_counts=torch.stack([mask.sum() for mask in masks]),
        ),
    ]
    student = factored(arrays['student_centroid_logits'], student_tau)
    terms = sliced_cross_entropy(student, targets, **options).terms
    actual['loss_centroid'], actual['loss_neighbour'] = terms
    center.observe(teacher)
    center.commit()
    actual['center_c_after'] = center.value[None]

    compare(actual, case)
    assert_detects_shift(actual, case)


@pytest.mark.parametrize('path', golden_cases('dino_multicrop_loss*.npz'))
def test_dino_multicrop(path: Path) -> None:
    case = load(path)
    tau, crops = float(case['teacher_temp']), int(case['num_crops'])
    logits = torch.from_numpy(case['student_logits']).requires_grad_()
    teacher = factored(torch.from_numpy(case['teacher_logits']), tau)
    center = make_center(case['center_before'], float(case['center_momentum']))
    target = centred_image_target(teacher, center.shift(tau), crops)
    student = factored(logits, float(case['student_temp']))
    loss = sliced_cross_entropy(student, [target], slice_rows=7).loss
    loss.backward()
    center.observe(teacher)
    center.commit()
    actual = dict(
        loss=loss.detach(), student_logits_grad=logits.grad, center_after=center.value[None]
    )
    # Gradients of these logits are near 1e-3: the absolute tolerance must not swallow them.
    compare(actual, case, atol=1e-7)
    assert_detects_shift(actual, case, atol=1e-7)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('path', golden_cases('vmf_log_normalizer*.npz'))
def test_vmf_log_normalizer(path: Path, autocast: bool) -> None:
    case = load(path)
    for dimension in np.unique(case['dimension']):
        rows = case['dimension'] == dimension
        kappa = torch.tensor(case['kappa'][rows], dtype=torch.float32, requires_grad=True)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            value = vmf_log_normalizer(kappa, int(dimension))
        assert value.dtype == torch.float32
        (slope,) = torch.autograd.grad(value.sum(), kappa)
        wanted = dict(log_c=case['log_c'][rows], dlog_c_dkappa=case['dlog_c_dkappa'][rows])
        low = dimension < 64  # one correction term of a large-order expansion
        compare(dict(log_c=value.detach()), wanted, rtol=5e-3 if low else 1e-4)
        compare(dict(dlog_c_dkappa=slope), wanted, rtol=5e-2 if low else 1e-4)
        if not low:
            assert_detects_shift(dict(log_c=value.detach(), dlog_c_dkappa=slope), wanted)
