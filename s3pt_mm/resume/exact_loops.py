"""Training loops that can stop after any iteration and go on as if nothing had happened.

mmengine's loops save from hooks *inside* an iteration and resume by reading every past batch
again. These loops have one place between iterations, the safe point, where nothing is half done:
all hooks have run and all counters have moved. ``SafeCheckpointHook`` saves only there.
"""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch import nn

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.resume.batches import keyed_sampler_of
from s3pt_mm.resume.data_identity import require_same_data
from s3pt_mm.resume.exact_resume import ExactResume
from s3pt_mm.resume.recipe import require_same_settings


@LOOPS.register_module()
class ExactEpochTrainLoop(ExactResume, EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that resumes exactly, in mid-epoch too, in a time that does not grow.

    ``train_cfg = dict(type='ExactEpochTrainLoop', max_epochs=100)``; the loader needs a
    ``KeyedSampler``.

    Args:
        runner: The runner.
        dataloader: Loader or its config.
        max_epochs: Epochs to train.
        val_begin, val_interval, dynamic_intervals: As mmengine's, in epochs.
        max_worker_restarts: Deaths of data workers tolerated per epoch.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        max_worker_restarts: int = 10,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        if not len(self.dataloader):
            batch, images = self.dataloader.batch_size, len(self.dataloader.dataset)
            raise ConfigError(
                f'train_dataloader: {images} images on {get_world_size()} ranks fill no batch of '
                f'{batch}, and drop_last leaves out what does: set train_dataloader.batch_size to '
                f'at most {images // get_world_size()}, or give more images'
            )
        self.max_worker_restarts = max_worker_restarts
        if keyed_sampler_of(self.dataloader, type(self).__name__).infinite:
            raise ValueError(
                'ExactEpochTrainLoop needs epochs that end: set train_dataloader.sampler.infinite='
                'False, or use ExactIterTrainLoop.'
            )

    def run(self) -> nn.Module:
        """Launches training, from the resumed position if there is one."""
        require_same_settings(self.runner)
        require_same_data(self.dataloader.dataset)
        self.runner.call_hook('before_train')
        random_state = self._go_on()
        resumed = self._iter > 0
        self._say_if_done(self._epoch >= self._max_epochs)
        self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            # Hooks before an epoch may draw random numbers. At an epoch's start they must draw what
            # the uninterrupted run draws; in its middle this is an extra call that must leave no
            # trace.
            if resumed and self.batch == 0:
                self._set_random(random_state)
            self.runner.call_hook('before_train_epoch')
            if resumed and self.batch > 0:
                self._set_random(random_state)
            resumed = False
            self.run_epoch()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """The rest of the current epoch, from batch ``self.batch`` on."""
        self.runner.model.train()
        self.dataloader.sampler.set_epoch(self._epoch)
        key = (self.dataloader.sampler.seed, get_rank(), self._epoch)
        last = len(self.dataloader)
        for index, data_batch in self.batches(key):
            self.run_iter(index, data_batch)
            self.batch = index + 1
            if self.batch < last:
                self._safe_point()
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.batch = 0
        self._decide_current_val_interval()
        self.validation_pending = (
            self.runner.val_loop is not None
            and self._epoch >= self.val_begin
            and (self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)
        )
        self._safe_point()
        self._validate()

    def _batch_without_state(self) -> int:
        # Of another data set or batch size it may lie anywhere.
        batch = self._iter - self._epoch * len(self.dataloader)
        return batch if 0 <= batch < len(self.dataloader) else 0

    def _moved_to(self, epoch: int, done: int, size: int, total: int) -> dict[str, int]:
        batches = len(self.dataloader)
        batch = min(done * self.dataloader.sampler.size // (size * total), batches - 1)
        return dict(batch=batch, iter=epoch * batches + batch)


@LOOPS.register_module()
class ExactIterTrainLoop(ExactResume, IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that resumes exactly, in a time that does not grow.

    ``train_cfg = dict(type='ExactIterTrainLoop', max_iters=160000)``; the loader needs a
    ``KeyedSampler``, which the loop makes infinite.

    Args:
        runner: The runner.
        dataloader: Loader or its config.
        max_iters: Iterations to train.
        val_begin, val_interval, dynamic_intervals: As mmengine's, in iterations.
        max_worker_restarts: Deaths of data workers tolerated in the run.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        max_worker_restarts: int = 10,
    ) -> None:
        # Not IterBasedTrainLoop.__init__: it opens the loader, and starts its workers, at once.
        BaseLoop.__init__(self, runner, dataloader)
        keyed_sampler_of(self.dataloader, type(self).__name__).infinite = True
        self._max_iters = int(max_iters)
        if self._max_iters != max_iters:
            raise ValueError(f'train_cfg.max_iters must be a whole number, but is {max_iters}')
        self._max_epochs = 1
        self._epoch = self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        self.max_worker_restarts = max_worker_restarts
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(
            val_interval, dynamic_intervals
        )

    def run(self) -> nn.Module:
        """Launches training, from the resumed position if there is one."""
        require_same_settings(self.runner)
        require_same_data(self.dataloader.dataset)
        self.runner.call_hook('before_train')
        random_state = self._go_on()
        resumed = self._iter > 0
        self._say_if_done(self._iter >= self._max_iters)
        self.runner.call_hook('before_train_epoch')
        self._validate()
        if resumed:
            self._set_random(random_state)
        batches = self.batches((self.dataloader.sampler.seed, get_rank()))
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            index, data_batch = next(batches)
            self.run_iter(data_batch)
            self.batch = index + 1
            self._decide_current_val_interval()
            self.validation_pending = (
                self.runner.val_loop is not None
                and self._iter >= self.val_begin
                and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
            )
            self._safe_point()
            self._validate()
        batches.close()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _batch_without_state(self) -> int:
        return self._iter

    def _moved_to(self, epoch: int, done: int, size: int, total: int) -> dict[str, int]:
        return dict(batch=done // total)
