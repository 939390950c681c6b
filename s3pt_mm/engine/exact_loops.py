"""Training loops that can stop after any iteration and go on as if nothing had happened.

mmengine's loops save from hooks *inside* an iteration and resume by reading every past batch
again. These loops have one place between iterations, the safe point, where nothing is half done:
all hooks have run and all counters have moved. ``SafeCheckpointHook`` saves only there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch import nn

from .batches import ignore_worker_signals, keyed_batches, keyed_sampler_of
from .random_state import get_random_state, seed_cpu_generators, set_random_state


class ExactResume:
    """What both loops share: position, safe points, and going on from a saved position.

    A hook named anything may define ``at_safe_point(runner)``; it is called after every iteration
    with all counters advanced, *before* a validation that is due.
    """

    resume_state: Mapping[str, Any] | None = None  # set by SafeCheckpointHook.before_train
    validation_pending: bool = False
    max_worker_restarts: int = 10
    _held_random: dict[str, Any] | None = None
    batch: int = 0  # batches of this epoch that are done (iteration-based: of the run)

    # ------------------------------------------------------------------ saving
    def position(self) -> dict[str, Any]:
        """Where the run stands, alike on all ranks: plain numbers only."""
        sampler = self.dataloader.sampler
        return dict(
            epoch=self._epoch,
            iter=self._iter,
            batch=self.batch,
            validation_pending=self.validation_pending,
            sampler_seed=sampler.seed,
            dataset_size=sampler.size,
            batch_size=self.dataloader.batch_sampler.batch_size,
            world_size=get_world_size(),
        )

    def random_state(self) -> dict[str, Any]:
        """This rank's random states; during a validation, those of the training it interrupts."""
        return self._held_random or get_random_state()

    def partial_gradients(self) -> dict[str, torch.Tensor]:
        """Gradients that wait for the rest of an accumulation, by parameter name; else empty."""
        optimised = {id(p) for group in self._param_groups() for p in group['params']}
        return {
            name: parameter.grad.detach().cpu()
            for name, parameter in _unwrapped(self.runner.model).named_parameters()
            if parameter.grad is not None and id(parameter) in optimised
        }

    def accumulation_done(self) -> bool:
        """Whether no gradient waits for the rest of an accumulation."""
        groups = self._param_groups()
        return all(parameter.grad is None for group in groups for parameter in group['params'])

    def _param_groups(self) -> list[dict[str, Any]]:
        groups = self.runner.optim_wrapper.param_groups
        return sum(groups.values(), []) if isinstance(groups, dict) else groups

    # ---------------------------------------------------------------- resuming
    def _go_on(self) -> Mapping[str, Any] | None:
        """Moves to the resumed position. Returns this rank's random states, to be set later."""
        state = self.resume_state
        position = None if state is None else state['position']
        if self._iter == 0:
            return None
        if position is None or (position['epoch'], position['iter']) != (self._epoch, self._iter):
            self.batch = self._batch_without_state()
            print_log(
                f'The checkpoint at iteration {self._iter} holds no exact-resumption state (it was '
                'not written by SafeCheckpointHook); continuing with the right data but with new '
                'random states: not exact.',
                logger='current',
                level=logging.WARNING,
            )
            return None
        here = self.position()
        changed = {
            name: (position[name], here[name])
            for name in ('dataset_size', 'batch_size', 'world_size')
            if position[name] != here[name]
        }
        self.dataloader.sampler.seed = position['sampler_seed']
        self.validation_pending = position['validation_pending']
        self.batch = position['batch']
        if changed:
            done = position['batch'] * position['batch_size'] * position['world_size']
            self.batch = min(done // (here['batch_size'] * here['world_size']), self._last_batch())
            print_log(
                'Resuming with other settings than the checkpoint was written with (then, now): '
                f'{changed}. The run continues near the same sample, but not exactly.',
                logger='current',
                level=logging.WARNING,
            )
        self._restore_gradients(state['gradients'])
        ranks = state['random']
        return ranks[get_rank()] if len(ranks) == get_world_size() else None

    def _restore_gradients(self, gradients: Mapping[str, torch.Tensor]) -> None:
        parameters = dict(_unwrapped(self.runner.model).named_parameters())
        for name, gradient in gradients.items():
            parameters[name].grad = gradient.to(parameters[name].device)
        if gradients:
            print_log(
                f'Restored the partial gradients of {len(gradients)} parameters: the warning above '
                'about a lost accumulation does not apply.',
                logger='current',
            )

    def _set_random(self, state: Mapping[str, Any] | None) -> None:
        if state is not None:
            set_random_state(state)
        else:
            seed_cpu_generators(self.dataloader.sampler.seed, get_rank(), self._iter)

    def _batch_without_state(self) -> int:
        raise NotImplementedError

    def _last_batch(self) -> int:
        raise NotImplementedError

    # -------------------------------------------------------------- validation
    def _validate(self) -> None:
        """Runs a due validation without touching the training's random generators."""
        if self.validation_pending:
            self._held_random = get_random_state()
            # Its own seed, so that a validation repeated after a stop gives the same figures.
            seed_cpu_generators(self.dataloader.sampler.seed, get_rank(), self._iter)
            self.runner.val_loop.run()
            set_random_state(self._held_random)
            self._held_random = None
            ignore_worker_signals()
        self.validation_pending = False

    def _safe_point(self) -> None:
        self.runner.call_hook('at_safe_point')


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
        self.max_worker_restarts = max_worker_restarts
        if keyed_sampler_of(self.dataloader, type(self).__name__).infinite:
            raise ValueError(
                'ExactEpochTrainLoop needs epochs that end: set train_dataloader.sampler.infinite='
                'False, or use ExactIterTrainLoop.'
            )

    def run(self) -> nn.Module:
        """Launches training, from the resumed position if there is one."""
        self.runner.call_hook('before_train')
        random_state = self._go_on()
        resumed = self._iter > 0
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
        for index, data_batch in keyed_batches(
            self.dataloader,
            start=self.batch,
            key=key,
            max_worker_restarts=self.max_worker_restarts,
        ):
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
        return self._iter - self._epoch * len(self.dataloader)

    def _last_batch(self) -> int:
        return len(self.dataloader)


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
        self.runner.call_hook('before_train')
        random_state = self._go_on()
        resumed = self._iter > 0
        self.runner.call_hook('before_train_epoch')
        self._validate()
        if resumed:
            self._set_random(random_state)
        batches = keyed_batches(
            self.dataloader,
            start=self.batch,
            key=(self.dataloader.sampler.seed, get_rank()),
            max_worker_restarts=self.max_worker_restarts,
        )
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

    def _last_batch(self) -> int:
        return self._max_iters


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
