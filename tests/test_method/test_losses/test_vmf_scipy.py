"""The vMF normaliser against scipy's Bessel functions, and as a density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, special

from s3pt_mm.method.losses import vmf_log_normalizer


def exact(kappa: np.ndarray, dimension: int) -> np.ndarray:
    nu = dimension / 2 - 1
    log_bessel = np.log(special.ive(nu, kappa)) + kappa
    return nu * np.log(kappa) - dimension / 2 * np.log(2 * np.pi) - log_bessel


@pytest.mark.parametrize('dimension', [64, 128, 256])
def test_value_and_slope(dimension: int) -> None:
    # Concentrations of gain 1 at the temperatures in use are 10 to 25.
    kappa = np.geomspace(5, 500, 40)
    ours = torch.tensor(kappa, requires_grad=True)
    value = vmf_log_normalizer(ours, dimension)
    (slope,) = torch.autograd.grad(value.sum(), ours)
    nu = dimension / 2 - 1
    np.testing.assert_allclose(value.detach(), exact(kappa, dimension), rtol=2e-6)
    ratio = special.ive(nu + 1, kappa) / special.ive(nu, kappa)
    np.testing.assert_allclose(slope, -ratio, rtol=1e-3)


def test_the_density_integrates_to_one() -> None:
    """C_D times exp(kappa cos a) is a density on the sphere; one angle is left to integrate."""
    dimension, kappa = 64, 12.0
    log_c = float(vmf_log_normalizer(torch.tensor(kappa, dtype=torch.float64), dimension))
    half = (dimension - 1) / 2
    log_area = np.log(2) + half * np.log(np.pi) - special.gammaln(half)

    def density(angle: float) -> float:
        return np.exp(log_c + log_area + kappa * np.cos(angle)) * np.sin(angle) ** (dimension - 2)

    mass, _ = integrate.quad(density, 0, np.pi)
    assert mass == pytest.approx(1, rel=1e-4)


def test_half_precision_is_widened_and_small_dimensions_are_refused() -> None:
    kappa = torch.tensor([10.0, 20.0])
    assert torch.equal(vmf_log_normalizer(kappa.bfloat16(), 256), vmf_log_normalizer(kappa, 256))
    with pytest.raises(ValueError, match='dimension=2'):
        vmf_log_normalizer(kappa, 2)
