"""What a pre-training run should show beside its losses."""

from __future__ import annotations

import time

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class TrainingLogHook(Hook):
    """Logs weight decay and images per second (all ranks, gradient steps and data together)."""

    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Prepare for the run."""
        self._last = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """See the class."""
        assert data_batch is not None  # the loops hand it over; optional in mmengine's signature
        now = time.perf_counter()
        images = len(data_batch['data_samples']) * get_world_size()
        runner.message_hub.update_scalar(
            'train/images_per_second', images / max(now - self._last, 1e-9)
        )
        self._last = now
        decay = max(group['weight_decay'] for group in runner.optim_wrapper.param_groups)
        runner.message_hub.update_scalar('train/weight_decay', decay)
