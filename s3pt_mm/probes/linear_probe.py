"""A linear head fitted to convergence on patch features: seconds, and no learning rate to choose.

The probes of ``s3pt-train`` follow the protocol: so many iterations of AdamW on augmented
crops. After few of them what is compared is how fast a linear map can be learnt, and features that
live in few directions are slow to learn from whatever they know. Here the same linear map (one 1x1
convolution) is fitted to the training images' patches by L-BFGS until it stands still. The target
of a patch is the share of each class among its pixels, the loss their cross-entropy with a small
penalty on the weights of standardised features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_linear(
    features: Tensor, shares: Tensor, *, penalty: float = 1e-5, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    """Weights and bias of the best linear classifier of patches.

    Args:
        features: (M, d); the fit runs where they are.
        shares: (M, C); rows sum to 1.
        penalty: On the squared weights of features with mean 0 and deviation 1.
        iterations: Of L-BFGS at most.

    Returns:
        (C, d) and (C,), for the features as given.
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-12)
    standard = (features - mean) / deviation
    shape = shares.shape[1], features.shape[1]
    weight = torch.zeros(shape, device=features.device, requires_grad=True)
    bias = torch.zeros(shape[0], device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, history_size=10, line_search_fn='strong_wolfe'
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(standard, weight, bias), shares)
        value = value + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    scaled = weight.detach() / deviation
    return scaled, bias.detach() - scaled @ mean
