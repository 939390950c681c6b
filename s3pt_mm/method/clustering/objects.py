"""From assignment and tokens to object vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from s3pt_mm.common.host import send
from s3pt_mm.method.clustering.joint_view import Assignment


@dataclass(frozen=True)
class ObjectPooling:
    """The valid clusters of a batch, in (image, cluster) order, and how to pool tokens into them.

    Attributes:
        weights: (2, B, K, N) pooling weights, each valid row of sum 1.
        index: (n,) flat (image * K + cluster) index of the n valid clusters.
        per_image: (B,) how many of them belong to each image, on the host.
    """

    weights: Tensor
    index: Tensor
    per_image: Tensor

    @classmethod
    def from_assignment(
        cls,
        assignment: Assignment,
        dtype: torch.dtype = torch.float32,
        valid: Tensor | None = None,
    ) -> ObjectPooling:
        """Pool the valid clusters.

        Args:
            assignment: Of the tokens that will be pooled.
            dtype: Of the weights; float64 for float64 tokens.
            valid: ``assignment.valid`` on the host where somebody has fetched it; otherwise the
                host waits here for all that the device was asked to do.
        """
        weights = assignment.weights(dtype).transpose(2, 3).contiguous()
        valid = assignment.valid.cpu() if valid is None else valid
        index = valid.flatten().nonzero().squeeze(1)
        return cls(weights, send(index, weights.device), valid.sum(1))

    def __call__(self, tokens: Tensor) -> Tensor:
        """Mean token of each object: (2, B, N, d) un-normalised tokens -> (2, n, d) float32.

        Gradients flow to the tokens (the student's); the weights are constants.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
            pooled = torch.matmul(self.weights.to(tokens.dtype), tokens)
            return pooled.flatten(1, 2).index_select(1, self.index)


def draw_first_tokens(
    seeds: Tensor | None, batch: int, num_tokens: int, num_clusters: int, device: torch.device | str
) -> Tensor:
    """(B, K) distinct token indices per image, uniform without replacement.

    Args:
        seeds: (B,) int64 on the host, one key per image (from (seed, epoch, index)), so that the
            draw depends neither on rank nor on batch; None draws from torch's global generator.
        batch: B.
        num_tokens: 2N.
        num_clusters: K, at most 2N.
        device: Where the result lives.
    """
    rows = []
    for image in range(batch):
        generator = None
        if seeds is not None:
            generator = torch.Generator().manual_seed(int(seeds[image]))
        rows.append(torch.randperm(num_tokens, generator=generator)[:num_clusters])
    return send(torch.stack(rows), device)
