"""The linear head: the optimum, soft targets, and features that must be scaled first."""

import torch
import torch.nn.functional as F

from s3pt_mm.probes.linear_probe import fit_linear


def problem():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 6, generator=generator)
    features[:, 0] = 1000 + 1e-2 * features[:, 0]  # a large mean, little in it
    truth = torch.randn(6, 3, generator=generator)
    logits = (features - torch.tensor([1000.0, 0, 0, 0, 0, 0])) @ truth
    return features.double(), logits.softmax(1).double()


def test_recovers_the_shares_of_a_linear_truth():
    features, shares = problem()
    weight, bias = fit_linear(features.float(), shares.float(), penalty=0.0)
    got = F.linear(features, weight.double(), bias.double()).softmax(1)
    assert (got - shares).abs().max() < 0.02


def test_gradient_vanishes_where_it_stops():
    features, shares = problem()
    weight, bias = (v.double() for v in fit_linear(features.float(), shares.float(), penalty=1e-3))
    mean, deviation = features.mean(0), features.std(0)
    scaled = (weight * deviation).requires_grad_()
    logits = F.linear((features - mean) / deviation, scaled, bias + weight @ mean)
    loss = F.cross_entropy(logits, shares) + 1e-3 * scaled.square().sum()
    loss.backward()
    assert scaled.grad.abs().max() < 1e-3
    # A stronger penalty leaves smaller weights.
    stronger, _ = fit_linear(features.float(), shares.float(), penalty=1e-1)
    assert (stronger * deviation).norm() < 0.7 * scaled.norm()
