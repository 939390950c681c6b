"""The plain reference itself against the golden numbers: else the comparison proves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden_cases import compare, golden_cases, load
from tests.reference import equations


@pytest.mark.parametrize('path', golden_cases('joint_view_clustering*.npz'))
def test_clustering(path: Path) -> None:
    case = load(path)
    tokens = torch.from_numpy(case['tokens_with_cls'])[:, 1:].unflatten(0, (2, -1)).double()
    xy = torch.from_numpy(case['positions_m_b_xy_n']).permute(1, 0, 3, 2).flatten(1, 2).double()
    members = equations.cluster(
        tokens.transpose(0, 1).flatten(1, 2),
        xy,
        torch.from_numpy(case['init_token_index_b_k']),
        iterations=int(case['sinkhorn_iterations']),
        strength=float(case['sinkhorn_lambda']),
        position_weight=float(case['pos_alpha']),
        rounds=int(case['outer_iterations']),
    )
    objects = equations.pool(tokens, members)
    joined = torch.cat(objects, dim=1).float().numpy()
    per_image = np.array([each.shape[1] for each in objects])
    compare(
        dict(centroids_view1=joined[0], centroids_view2=joined[1], centroids_per_image=per_image),
        case,
    )


@pytest.mark.parametrize('path', golden_cases('neighbour_retrieval*.npz'))
def test_neighbours(path: Path) -> None:
    case = load(path)
    held = int(case['images_in_queue_counts_before'].sum())
    memory = [torch.from_numpy(case['queue_before'])[:, :held]]
    objects = torch.stack([torch.from_numpy(case[f'centroids_view{v}']) for v in (1, 2)])
    for view in (0, 1):
        found, kept = equations.neighbours(objects, memory, view)
        name = f'view{view + 1}'
        compare({f'cycle_consistent_{name}': kept.numpy()}, case)
        np.testing.assert_allclose(found, case[f'neighbours_of_{name}'][view], rtol=1e-5)


@pytest.mark.parametrize('path', golden_cases('losses*.npz'))
def test_losses(path: Path) -> None:
    case = {name: torch.from_numpy(np.asarray(value)) for name, value in load(path).items()}
    tau, student_tau = case['teacher_temp'], case['student_temp']

    def loss(teacher: torch.Tensor, center: str, student: torch.Tensor) -> torch.Tensor:
        return equations.cross_entropy(
            ((teacher - case[center]) / tau).softmax(1), student / student_tau
        )

    teachers, students = (case[f'{who}_centroid_logits'].chunk(2) for who in ('teacher', 'student'))
    classes, learned = (case[f'{who}_cls_logits'].chunk(2) for who in ('teacher', 'student'))
    masks = [case[f'cycle_mask_view{view}'] for view in (1, 2)]
    near = [case[f'teacher_neighbour_logits_view{view}'] for view in (1, 2)]
    sides = (0, 1)
    actual = dict(
        loss_cls=sum(loss(classes[v], 'center_before', learned[1 - v]) for v in sides) / 2,
        loss_centroid=sum(loss(teachers[v], 'center_c_before', students[1 - v]) for v in sides) / 2,
        loss_neighbour=sum(
            loss(near[v][masks[v]], 'center_c_before', students[1 - v][masks[v]]) for v in sides
        )
        / 2,
    )
    compare(actual, load(path))


@pytest.mark.parametrize('path', golden_cases('vmf_log_normalizer*.npz'))
def test_vmf(path: Path) -> None:
    case = load(path)
    for dimension in np.unique(case['dimension'][case['dimension'] >= 64]):
        rows = case['dimension'] == dimension
        value = equations.vmf_log_normalizer(torch.tensor(case['kappa'][rows]), int(dimension))
        compare(dict(log_c=value), dict(log_c=case['log_c'][rows]))
