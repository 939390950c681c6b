"""The plain reference itself against the golden numbers: else the comparison proves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden_cases import assert_detects_shift, compare, golden_cases, load
from tests.reference import equations, golden


@pytest.mark.parametrize('path', golden_cases('joint_view_clustering*.npz'))
def test_clustering(path: Path) -> None:
    case = load(path)
    compare(golden.clustering(case), case)


@pytest.mark.parametrize('path', golden_cases('neighbour_retrieval*.npz'))
def test_neighbours_and_memory(path: Path) -> None:
    case = load(path)
    actual = golden.retrieval(case)
    held = actual['queue_after'].shape[1]
    compare(actual, {**case, 'queue_after': case['queue_after'][:, :held]})


@pytest.mark.parametrize('path', golden_cases('losses*.npz'))
def test_losses_and_centres(path: Path) -> None:
    case = load(path)
    compare(golden.losses(case), case)


@pytest.mark.parametrize('path', golden_cases('dino_multicrop_loss*.npz'))
def test_multicrop_loss_its_gradient_and_the_centre(path: Path) -> None:
    case = load(path)
    actual = golden.multicrop(case)
    compare(actual, case, atol=1e-7)
    assert_detects_shift(actual, case, atol=1e-7)


@pytest.mark.parametrize('path', golden_cases('vmf_log_normalizer*.npz'))
def test_vmf(path: Path) -> None:
    """Value and slope; below 64 dimensions as far as one correction term reaches."""
    case = load(path)
    for dimension in np.unique(case['dimension']):
        rows = case['dimension'] == dimension
        kappa = torch.tensor(case['kappa'][rows], dtype=torch.float64, requires_grad=True)
        value = equations.vmf_log_normalizer(kappa, int(dimension))
        (slope,) = torch.autograd.grad(value.sum(), kappa)
        low = dimension < 64
        wanted = {name: case[name][rows] for name in ('log_c', 'dlog_c_dkappa')}
        compare(dict(log_c=value.detach()), wanted, rtol=5e-3 if low else 1e-4)
        compare(dict(dlog_c_dkappa=slope), wanted, rtol=5e-2 if low else 1e-4)
