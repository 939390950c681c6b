"""The polynomial schedule with its floor as a share of the start."""

from __future__ import annotations

from typing import Any

from mmengine.optim.scheduler import PolyParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmseg.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class PolyLRToFraction(LRSchedulerMixin, PolyParamScheduler):
    """``PolyLR`` whose final value is a fraction of each group's own initial value.

    mmseg's floor of 1e-4 lies above 8e-5, the smallest lr of the protocol; with a fraction one
    number (``optim_wrapper.optimizer.lr``) is all that a sweep changes.

    Args:
        optimizer: As mmengine's.
        final_fraction: Final lr over initial lr; 0.1 in CrIBo's probing code.
        kwargs: Of mmengine's ``PolyLR``, except ``eta_min``.
    """

    def __init__(self, optimizer: Any, final_fraction: float = 0.1, **kwargs: Any) -> None:
        self.final_fraction = final_fraction
        super().__init__(optimizer, **kwargs)

    def _get_value(self) -> list[float]:
        groups = self.optimizer.param_groups
        if self.last_step == 0:
            return [group[self.param_name] for group in groups]
        shrink = (1 - 1 / (self.total_iters - self.last_step + 1)) ** self.power
        floors = [base * self.final_fraction for base in self.base_values]
        return [
            (group[self.param_name] - floor) * shrink + floor
            for group, floor in zip(groups, floors, strict=True)
        ]
