"""The teacher, the centres and the memory follow after each optimiser step."""

from __future__ import annotations

import math

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch.optim import Optimizer

from s3pt_mm.common.host import Refusal
from s3pt_mm.common.models import unwrap


@HOOKS.register_module()
class TeacherUpdateHook(Hook):
    """Exponential moving average with a momentum that rises on a cosine, every iteration.

    ``m(t) = end - (end - start) * (1 + cos(pi t / T)) / 2``, T the run's length (DINO: 0.996 -> 1).
    ``m`` is the teacher's share, not 1 - m as in mmpretrain's ``CosineEMA``. Centres and memory
    move here too. With gradient accumulation all move once a step; where the optimiser's step was
    not taken (the loss scaler found infinite gradients, or ``DivergenceHook`` refused) nothing
    moves.

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
        self._stepped = False
        self._refusal: Refusal | None = None

    def momentum(self, iteration: int, iterations: int) -> float:
        """m at ``iteration`` (from 0) of ``iterations``."""
        cosine = (1 + math.cos(math.pi * iteration / iterations)) / 2
        return self.end - (self.end - self.start) * cosine

    def before_train(self, runner: Runner) -> None:
        """Listens to the optimiser's steps."""
        self._stepped, self._refusal = False, None
        self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(self._note)

    def after_train(self, runner: Runner) -> None:
        """Leaves the optimiser."""
        self._handle.remove()

    def _note(self, optimizer: Optimizer, *_: object) -> None:
        # A loss scaler calls a fused optimiser in any case and leaves the decision to its kernel.
        overflow = getattr(optimizer, 'found_inf', None)
        self._stepped, self._refusal = True, None if overflow is None else Refusal.of(overflow)

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
        if not runner.optim_wrapper.should_update():
            return
        stepped, refusal = self._stepped, self._refusal
        self._stepped, self._refusal = False, None
        model = unwrap(runner.model)
        if stepped:
            model.update_teacher(momentum, refusal)
        else:
            model.forget_step()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A checkpoint in the middle of an accumulation holds what waits for the step."""
        modules = unwrap(runner.model).state_modules()
        pending = {name: found for name, m in modules.items() if (found := m.pending())}
        if pending:
            checkpoint['pending_step'] = pending

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take it back when the run is resumed."""
        modules = unwrap(runner.model).state_modules()
        for name, found in checkpoint.get('pending_step', {}).items() if runner._resume else ():
            modules[name].restore(found)
