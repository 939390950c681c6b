"""Running centre of the teacher's outputs: of logits (DINO) or of probabilities (DINO-vMF)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3pt_mm.method.distributed import logaddexp_over_ranks, sum_over_ranks
from s3pt_mm.method.losses.prototype_logits import PrototypeLogits, log_probability_sum


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

    def new_log_sum(self) -> Tensor | None:
        """(P,) of -inf for a loss to fill as a by-product; None where :meth:`update` needs none."""
        if self.space == 'logit':
            return None
        return torch.full_like(self.value, -torch.inf)

    @torch.no_grad()
    def update(
        self, logits: PrototypeLogits, *, log_sum: Tensor | None = None, slice_rows: int = 64
    ) -> None:
        """Move the centre towards this step's rows; a collective: every rank calls it once.

        Args:
            logits: This rank's teacher rows, without the centre.
            log_sum: (P,) :func:`log_probability_sum` of them where somebody has formed it already;
                only a centre in probability space looks at it.
            slice_rows: Rows whose logits exist at a time.
        """
        rows = logits.features
        count = sum_over_ranks(rows.new_full((), len(rows)).double())
        if self.space == 'logit':
            # Logits are linear in the features: the mean logit is the mean feature's.
            mean_row = sum_over_ranks(rows.sum(0).double()) / count.clamp_min(1)
            mean = logits.products(mean_row)
        else:
            if log_sum is None:
                log_sum = log_probability_sum(logits, slice_rows=slice_rows)
            mean = logaddexp_over_ranks(log_sum) - torch.log(count.clamp_min(1))
        moved = self.momentum * self.value + (1 - self.momentum) * mean.to(self.value.dtype)
        self.value.copy_(torch.where(count > 0, moved, self.value))
