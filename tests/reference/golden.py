"""Golden files from the plain equations: what they give for a file's inputs, and new files.

    python -m tests.reference.golden FOLDER [--seed 0]

writes a folder of other shapes (clusters, tokens, widths, batch, weights, crops) for
``S3PT_GOLDEN_DIR``. The equations agree with the shipped files (test_reference_golden.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import mpmath
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.reference import equations

Arrays = Mapping[str, np.ndarray]


def tensors(case: Arrays) -> dict[str, Tensor]:
    """Arrays as tensors, real ones in float64."""
    found = {name: torch.from_numpy(np.asarray(value)) for name, value in case.items()}
    return {k: v.double() if v.is_floating_point() else v for k, v in found.items()}


def clustering(case: Arrays) -> dict[str, np.ndarray]:
    """Outputs of a ``joint_view_clustering`` file."""
    given = tensors(case)
    tokens = given['tokens_with_cls'][:, 1:].unflatten(0, (2, -1))  # (2, B, N, d)
    members = equations.cluster(
        tokens.transpose(0, 1).flatten(1, 2),
        given['positions_m_b_xy_n'].permute(1, 0, 3, 2).flatten(1, 2),
        given['init_token_index_b_k'],
        iterations=int(case['sinkhorn_iterations']),
        strength=float(case['sinkhorn_lambda']),
        position_weight=float(case['pos_alpha']),
        rounds=int(case['outer_iterations']),
    )
    objects = equations.pool(tokens, members)
    joined = torch.cat(objects, dim=1)
    views = torch.stack(members.chunk(2, dim=1)).double()  # (2, B, N, K)
    sizes = views.sum(2, keepdim=True)
    return dict(
        assignments_m_b_n_k=_single(views / sizes.clamp_min(1)),
        valid_bk=(sizes > 0).all(0).flatten().numpy(),
        centroids_view1=_single(joined[0]),
        centroids_view2=_single(joined[1]),
        centroids_per_image=np.array([each.shape[1] for each in objects]),
    )


def retrieval(case: Arrays) -> dict[str, np.ndarray]:
    """Outputs of a ``neighbour_retrieval`` file; of the queue only the rows that it holds."""
    given = tensors(case)
    before = given['images_in_queue_counts_before']
    held = given['queue_before'][:, : int(before.sum())]
    objects = torch.stack([given['centroids_view1'], given['centroids_view2']])
    found: dict[str, np.ndarray] = {}
    for view in (0, 1):
        index, kept = equations.neighbour_indices(objects, held, view)
        found[f'neighbour_index_view{view + 1}'] = index.numpy()
        found[f'cycle_consistent_view{view + 1}'] = kept.numpy()
        found[f'neighbours_of_view{view + 1}'] = _single(held[:, index])
    after = torch.cat([given['centroids_per_image'].to(before), before])[: len(before)]
    queue = torch.cat([objects, held], dim=1)[:, : int(after.sum())]
    return {**found, 'queue_after': _single(queue), 'images_in_queue_counts_after': after.numpy()}


def losses(case: Arrays) -> dict[str, np.ndarray]:
    """Outputs of a ``losses`` file (CrIBo: plain logits, centres of logits)."""
    given = tensors(case)
    tau, momentum = float(case['teacher_temp']), float(case['center_momentum'])

    def teach(name: str, center: str) -> Tensor:
        return ((given[name] - given[center]) / tau).softmax(1)

    student = {
        level: (given[f'student_{level}_logits'] / float(case['student_temp'])).chunk(2)
        for level in ('cls', 'centroid')
    }
    objects = teach('teacher_centroid_logits', 'center_c_before').chunk(2)
    masks = [given[f'cycle_mask_view{view}'] for view in (1, 2)]
    near = [teach(f'teacher_neighbour_logits_view{view}', 'center_c_before') for view in (1, 2)]
    across = [
        equations.cross_entropy(near[v][masks[v]], student['centroid'][1 - v][masks[v]])
        for v in (0, 1)
    ]
    return dict(
        loss_cls=equations.multicrop_loss(
            teach('teacher_cls_logits', 'center_before').chunk(2), student['cls']
        ).numpy(),
        loss_centroid=equations.multicrop_loss(objects, student['centroid']).numpy(),
        loss_neighbour=(sum(across) / 2).numpy(),
        center_after=_single(
            equations.moved_center(given['center_before'], given['teacher_cls_logits'], momentum)
        ),
        center_c_after=_single(
            equations.moved_center(
                given['center_c_before'], given['teacher_centroid_logits'], momentum
            )
        ),
    )


def multicrop(case: Arrays) -> dict[str, np.ndarray]:
    """Outputs of a ``dino_multicrop_loss`` file."""
    given = tensors(case)
    logits = given['student_logits'].requires_grad_()
    centred = given['teacher_logits'] - given['center_before']
    teacher = (centred / float(case['teacher_temp'])).softmax(1).chunk(2)
    crops = (logits / float(case['student_temp'])).chunk(int(case['num_crops']))
    loss = equations.multicrop_loss(teacher, crops)
    (gradient,) = torch.autograd.grad(loss, logits)
    momentum = float(case['center_momentum'])
    center = equations.moved_center(given['center_before'], given['teacher_logits'], momentum)
    return dict(
        loss=loss.detach().numpy(),
        student_logits_grad=_single(gradient),
        center_after=_single(center),
    )


def exact_vmf(dimension: int, kappa: float) -> tuple[float, float]:
    """log C_D(kappa) and its derivative, in 60 digits."""
    with mpmath.workdps(60):
        nu, k = mpmath.mpf(dimension) / 2 - 1, mpmath.mpf(kappa)
        bessel = mpmath.besseli(nu, k)
        log_c = nu * mpmath.log(k) - (nu + 1) * mpmath.log(2 * mpmath.pi) - mpmath.log(bessel)
        return float(log_c), float(-mpmath.besseli(nu + 1, k) / bessel)


def write_folder(folder: Path, seed: int = 0) -> None:
    """One file a form, with other shapes than the shipped ones."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    found = _write(folder / 'joint_view_clustering_other.npz', clustering, _clustering_inputs())
    _write(folder / 'neighbour_retrieval_other.npz', retrieval, _retrieval_inputs(found))
    _write(folder / 'losses_other.npz', losses, _loss_inputs(len(found['centroids_view1'])))
    _write(folder / 'dino_multicrop_loss_other.npz', multicrop, _multicrop_inputs())
    cases = [(d, k) for d in (16, 72, 320) for k in (0.7, 9.0, 31.0, 140.0)]
    values = [exact_vmf(*case) for case in cases]
    np.savez(
        folder / 'vmf_log_normalizer_other.npz',
        dimension=np.array([d for d, _ in cases]),
        kappa=np.array([k for _, k in cases]),
        log_c=np.array([value for value, _ in values]),
        dlog_c_dkappa=np.array([slope for _, slope in values]),
    )


def _write(path: Path, function, inputs: dict) -> dict[str, np.ndarray]:  # noqa: ANN001
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    outputs = function(inputs)
    np.savez(path, **inputs, **outputs)
    return {**inputs, **outputs}


def _clustering_inputs(batch: int = 5, width: int = 17, clusters: int = 11) -> dict:
    grid = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing='xy'))
    low = torch.rand(2, batch, 2, 1) * 300
    positions = low + grid.flatten(1) * (20 + 40 * torch.rand(2, batch, 2, 1))  # (2, B, 2, N)
    # Tokens that look alike where they lie close, as an image's do.
    waves = torch.randn(2, width) / 90
    tokens = torch.sin(positions.transpose(2, 3) @ waves) + 0.4 * torch.randn(2, batch, 63, width)
    with_class = torch.cat([torch.randn(2, batch, 1, width), tokens], dim=2)
    first = torch.stack([torch.randperm(126)[:clusters] for _ in range(batch)])
    return dict(
        num_clusters=clusters,
        sinkhorn_iterations=3,
        sinkhorn_lambda=15.0,
        pos_alpha=0.6,
        outer_iterations=4,
        tokens_with_cls=with_class.flatten(0, 1),
        positions_m_b_xy_n=positions,
        init_token_index_b_k=first,
    )


def _retrieval_inputs(clustered: dict, images: int = 9, slots: int = 11) -> dict:
    objects = [torch.from_numpy(clustered[f'centroids_view{view}']) for view in (1, 2)]
    counts = torch.randint(1, slots, (images,), dtype=torch.int32)
    held = int(counts.sum())
    # Half of the memory resembles this batch, so that some cycles close and some do not.
    alike = torch.randint(len(objects[0]), (held,))
    noise = (torch.rand(held, 1) < 0.5) * 2.0 + 0.3
    queue = torch.stack([o[alike] + noise * 0.3 * torch.randn(held, o.shape[1]) for o in objects])
    return dict(
        queue_before=F.pad(queue, (0, 0, 0, images * slots - held)),
        images_in_queue_counts_before=counts,
        centroids_view1=objects[0],
        centroids_view2=objects[1],
        centroids_per_image=clustered['centroids_per_image'],
    )


def _loss_inputs(objects: int, images: int = 5, wide: int = 72, narrow: int = 56) -> dict:
    return dict(
        teacher_temp=0.055,
        student_temp=0.12,
        center_momentum=0.85,
        student_cls_logits=torch.randn(2 * images, wide),
        teacher_cls_logits=torch.randn(2 * images, wide),
        student_centroid_logits=torch.randn(2 * objects, narrow),
        teacher_centroid_logits=torch.randn(2 * objects, narrow),
        teacher_neighbour_logits_view1=torch.randn(objects, narrow),
        teacher_neighbour_logits_view2=torch.randn(objects, narrow),
        cycle_mask_view1=torch.rand(objects) < 0.6,
        cycle_mask_view2=torch.rand(objects) < 0.4,
        center_before=torch.randn(1, wide) / 5,
        center_c_before=torch.randn(1, narrow) / 5,
    )


def _multicrop_inputs(images: int = 3, crops: int = 7, prototypes: int = 50) -> dict:
    return dict(
        teacher_temp=0.06,
        student_temp=0.09,
        center_momentum=0.95,
        num_crops=crops,
        student_logits=torch.randn(images * crops, prototypes),
        teacher_logits=torch.randn(2 * images, prototypes),
        center_before=torch.randn(1, prototypes) / 5,
    )


def _single(values: Tensor) -> np.ndarray:
    return values.float().numpy()


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('folder', type=Path)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    write_folder(arguments.folder, arguments.seed)
