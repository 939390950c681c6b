"""The supplement's ``cyclic-20e`` with its warm-up, and a momentum that AdamW survives.

mmdet3d's cyclic-20e chains two cosines for the learning rate and two for the momentum. Three things
stand against adding a warm-up to that chain as it is:

* mmengine's schedulers are recursive, so a warm-up chained with a cosine is not their product;
* ``eta_min`` is absolute, so a parameter group with a factor (0.1 for a trained backbone) would
  rise to the same 1e-3 as all others; here everything is relative to a group's own base value;
* the momentum ends at 1, and AdamW divides by 1 - beta1^step: an update of infinity.

Both schedules here are closed forms of the iteration.
"""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.momentum_scheduler import MomentumSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS


def cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine; ``share`` in [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class CyclicParamScheduler(_ParamScheduler):
    """One rise and one fall along cosines, times a linear warm-up, as factors of the base value.

    Args:
        up: Epochs (or iterations) from the base value to ``peak_ratio`` times it.
        total: Epochs until ``final_ratio`` times the base value; it stays there after.
        peak_ratio: See ``up``.
        final_ratio: See ``total``.
        warmup: Epochs of a linear factor from 1 / n to 1, n the number of its iterations.
        maximum: No value exceeds this; None: no limit.
        kwargs: mmengine's.
    """

    def __init__(
        self,
        *args: Any,
        up: float,
        total: float,
        peak_ratio: float,
        final_ratio: float,
        warmup: float = 0,
        maximum: float | None = None,
        **kwargs: Any,
    ) -> None:
        if not 0 <= warmup <= total or not 0 < up < total:
            raise ValueError(f'need 0 < up < total >= warmup, got {up}, {total}, {warmup}')
        self.up, self.total, self.warmup = up, total, warmup
        self.peak_ratio, self.final_ratio = peak_ratio, final_ratio
        self.maximum = maximum
        super().__init__(*args, **kwargs)

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        up: float,
        total: float,
        warmup: float = 0,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> CyclicParamScheduler:
        """mmengine's hook for ``convert_to_iter_based=True``."""
        if not by_epoch or not epoch_length:
            raise ValueError(f'need by_epoch=True and a length, got {by_epoch} and {epoch_length}')
        return cls(
            *args,
            up=up * epoch_length,
            total=total * epoch_length,
            warmup=warmup * epoch_length,
            begin=int(begin * epoch_length),
            end=end if end == INF else int(end * epoch_length),
            by_epoch=False,
            **kwargs,
        )

    def factor(self, step: int) -> float:
        """Of the base value at a step, before ``maximum``."""
        if step < self.up:
            value = cosine(1.0, self.peak_ratio, step / self.up)
        else:
            share = min((step - self.up) / (self.total - self.up), 1.0)
            value = cosine(self.peak_ratio, self.final_ratio, share)
        return value * min((step + 1) / self.warmup, 1.0) if self.warmup else value

    def _get_value(self) -> list[float]:
        factor = self.factor(self.last_step)
        limit = math.inf if self.maximum is None else self.maximum
        return [min(base * factor, limit) for base in self.base_values]


@PARAM_SCHEDULERS.register_module()
class S3PTCyclicLR(LRSchedulerMixin, CyclicParamScheduler):
    """:class:`CyclicParamScheduler` of the learning rate."""


@PARAM_SCHEDULERS.register_module()
class S3PTCyclicMomentum(MomentumSchedulerMixin, CyclicParamScheduler):
    """:class:`CyclicParamScheduler` of SGD's momentum or Adam's first beta."""
