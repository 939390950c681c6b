"""Running centre of the teacher's outputs: of logits (DINO) or of probabilities (DINO-vMF)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from s3pt_mm.common.host import Refusal, send
from s3pt_mm.method.distributed import start_logaddexp, start_sum
from s3pt_mm.method.losses.prototype_logits import PrototypeLogits, log_probability_sum


class Center(nn.Module):
    """Centre ``c`` of a prototype layer's teacher outputs, subtracted before its softmax.

    * ``space='logit'`` (DINO, arXiv 2104.14294, section 3.1): teacher = softmax((l - c) / tau) and
      ``c <- m c + (1 - m) mean(l)``, with l the logits *without* temperature. Logits are linear
      in the features, so the mean needs one product of the mean feature.
    * ``space='probability'`` (proposed by DINO-vMF, arXiv 2405.10939; the form is a choice of this
      package): teacher = softmax(l - c), l with temperature and vMF term, and
      ``c <- m c + (1 - m) log mean softmax(l)``.

    Means run over the rows of all ranks and, with gradient accumulation, of all micro-batches of a
    step. The centre moves with the optimiser: :meth:`observe` in the loss, :meth:`commit` after
    the step, or :meth:`forget` where the step was not taken.

    Args:
        num_prototypes: P.
        space: 'logit' or 'probability'.
        momentum: m of the running mean.

    Raises:
        ValueError: For another ``space``.
    """

    SPACES = ('logit', 'probability')

    value: Tensor

    def __init__(self, num_prototypes: int, *, space: str, momentum: float = 0.9) -> None:
        super().__init__()
        if space not in self.SPACES:
            raise ValueError(f'center space must be one of {self.SPACES}, got {space!r}')
        self.space = space
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(num_prototypes))
        # (rows of all ranks, what waits for their sum) of each micro-batch since the last step
        self._observed: list[tuple[int, Callable[[], Tensor]]] = []

    def shift(self, temperature: float) -> Tensor:
        """(P,) what to subtract from logits that carry the temperature already."""
        return self.value / temperature if self.space == 'logit' else self.value

    def new_log_sum(self) -> Tensor | None:
        """(P,) of -inf for a loss to fill as a by-product; None where nobody needs it."""
        if self.space == 'logit':
            return None
        return torch.full_like(self.value, -torch.inf)

    @torch.no_grad()
    def observe(
        self,
        logits: PrototypeLogits,
        *,
        global_rows: int | None = None,
        log_sum: Tensor | None = None,
        slice_rows: int = 64,
    ) -> None:
        """Take in this (micro-)batch's rows; :meth:`commit` moves the centre.

        A collective that does not wait: every rank calls it once, and the ranks' sums are under
        way while the step goes on.

        Args:
            logits: This rank's teacher rows, without the centre.
            global_rows: Rows over all ranks; None with one rank.
            log_sum: (P,) :func:`log_probability_sum` of them where somebody has formed it already;
                only a centre in probability space looks at it.
            slice_rows: Rows whose logits exist at a time.
        """
        count = len(logits.features) if global_rows is None else global_rows
        if count == 0:
            return
        if self.space == 'logit':
            # Logits are linear in the features: the sum of logits is that of the summed features.
            features = start_sum(logits.features.sum(0).double())

            def finish() -> Tensor:
                return logits.products(features() / count)
        else:
            if log_sum is None:
                log_sum = log_probability_sum(logits, slice_rows=slice_rows)
            finish = start_logaddexp(log_sum)
        self._observed.append((count, finish))

    @torch.no_grad()
    def commit(self, refusal: Refusal | None = None) -> None:
        """Move the centre towards all rows observed since the last step.

        Without a row it stays, and where the device finds that the step was refused.
        """
        observed, self._observed = self._observed, []
        if not observed:
            return
        total = sum(count for count, _ in observed)
        if self.space == 'logit':
            parts = (finish() * (count / total) for count, finish in observed)
            mean = sum(parts, torch.zeros_like(self.value))
        else:
            mean = observed[0][1]()
            for _, finish in observed[1:]:
                mean = torch.logaddexp(mean, finish())
            mean = mean - math.log(total)
        moved = self.value.lerp(mean.to(self.value.dtype), 1 - self.momentum)
        if refusal is not None:
            moved = torch.where(refusal.flag > 0, self.value, moved)
        self.value.copy_(moved)

    def forget(self) -> None:
        """Drop what was observed: the step was not taken."""
        self._observed = []

    def pending(self) -> list[tuple[int, Tensor]]:
        """What was observed since the last step: (rows, their sum), for a checkpoint between."""
        return [(count, finish()) for count, finish in self._observed]

    def restore(self, pending: list[tuple[int, Tensor]]) -> None:
        """Take :meth:`pending` back."""
        device = self.value.device
        self._observed = [(count, partial(send, value, device)) for count, value in pending]
