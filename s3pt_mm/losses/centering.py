"""Running centre of the teacher's outputs: of logits (DINO) or of probabilities (DINO-vMF)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3pt_mm.distributed import logaddexp_over_ranks, sum_over_ranks
from s3pt_mm.losses.sliced_cross_entropy import PrototypeLogits, log_mean_probability


class Center(nn.Module):
    """Centre ``c`` of a prototype layer's teacher outputs, subtracted before its softmax.

    * ``space='logit'`` (DINO, arXiv 2104.14294, section 3.1): teacher = softmax((l - c) / tau) and
      ``c <- m c + (1 - m) mean(l)``, with l the logits *without* temperature. Logits are linear
      in the features, so the mean needs one product of the mean feature.
    * ``space='probability'`` (proposed by DINO-vMF, arXiv 2405.10939; the form is a choice of this
      package): teacher = softmax(l - c), l with temperature and vMF term, and
      ``c <- m c + (1 - m) log mean softmax(l)``.

    Means run over the rows of all ranks. Without a row on any rank the centre stays.

    Args:
        num_prototypes: P.
        space: 'logit' or 'probability'.
        momentum: m of the running mean.

    Raises:
        ValueError: For another ``space``.
    """

    SPACES = ('logit', 'probability')

    def __init__(self, num_prototypes: int, *, space: str, momentum: float = 0.9) -> None:
        super().__init__()
        if space not in self.SPACES:
            raise ValueError(f'center space must be one of {self.SPACES}, got {space!r}')
        self.space = space
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(num_prototypes))

    def shift(self, temperature: float) -> Tensor:
        """(P,) what to subtract from logits that carry the temperature already."""
        return self.value / temperature if self.space == 'logit' else self.value

    @torch.no_grad()
    def update(self, logits: PrototypeLogits, *, slice_rows: int = 64) -> None:
        """Move the centre towards this step's rows; a collective: every rank calls it once."""
        rows = logits.features
        if self.space == 'logit':
            packed = torch.cat([rows.sum(0).double(), rows.new_full((1,), len(rows)).double()])
            packed = sum_over_ranks(packed)
            count = packed[-1]
            with torch.autocast(rows.device.type, enabled=False):
                weight = logits.weight
                mean = weight @ (packed[:-1] / count.clamp_min(1)).to(weight.dtype)
        else:
            total, count = log_mean_probability(logits, slice_rows=slice_rows)
            total, count = logaddexp_over_ranks(total), sum_over_ranks(count)
            mean = total - torch.log(count.clamp_min(1))
        moved = self.momentum * self.value + (1 - self.momentum) * mean.to(self.value.dtype)
        self.value.copy_(torch.where(count > 0, moved, self.value))
