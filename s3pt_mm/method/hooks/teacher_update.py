"""The teacher follows the student after each optimiser step."""

from __future__ import annotations

import math

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from s3pt_mm.method.hooks.method_schedule import unwrap


@HOOKS.register_module()
class TeacherUpdateHook(Hook):
    """Exponential moving average with a momentum that rises on a cosine, every iteration.

    ``m(t) = end - (end - start) * (1 + cos(pi t / T)) / 2``, T the run's length (DINO: 0.996 -> 1).
    ``m`` is the teacher's share, not 1 - m as in mmpretrain's ``CosineEMA``. With gradient
    accumulation the teacher moves only when the optimiser did.

    Args:
        start: Momentum at iteration 0.
        end: Momentum that the last iteration approaches.
    """

    # Before any hook that looks at the finished iteration: checkpoints, probes.
    priority = 'ABOVE_NORMAL'

    def __init__(self, start: float = 0.996, end: float = 1.0) -> None:
        if not 0 <= start <= end <= 1:
            raise ValueError(f'need 0 <= start <= end <= 1, got start={start}, end={end}')
        self.start = start
        self.end = end

    def momentum(self, iteration: int, iterations: int) -> float:
        """m at ``iteration`` (from 0) of ``iterations``."""
        cosine = (1 + math.cos(math.pi * iteration / iterations)) / 2
        return self.end - (self.end - self.start) * cosine

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """See the class."""
        momentum = self.momentum(runner.iter, runner.max_iters)
        runner.message_hub.update_scalar('train/teacher_momentum', momentum)
        if runner.optim_wrapper.should_update():
            unwrap(runner.model).update_teacher(momentum)
