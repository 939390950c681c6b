"""Checkpoints that survive crashes, full disks and schedulers, and from which a run goes on
exactly."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from s3pt_mm.common.files import remove_leftovers
from s3pt_mm.resume.background import BackgroundWriter
from s3pt_mm.resume.best_checkpoint import AtomicBestCheckpoint
from s3pt_mm.resume.checkpoint_files import (
    CheckpointError,
    newest_whole,
)
from s3pt_mm.resume.finite import non_finite
from s3pt_mm.resume.leaving import ExitSignals
from s3pt_mm.resume.ranks import agree
from s3pt_mm.resume.resumption import STATE_KEY, Choice, Resumption, choose
from s3pt_mm.resume.run_lock import RunLock

_NOTHING, _SAVE, _SAVE_AND_EXIT = 0, 1, 2


@HOOKS.register_module()
class SafeCheckpointHook(AtomicBestCheckpoint):
    """mmengine's ``CheckpointHook`` with promises; needs ``ExactEpochTrainLoop`` or
    ``ExactIterTrainLoop``.

    * *Exact*: position of the sampler, random states and batch-norm statistics of every rank and
      gradients of an unfinished accumulation are saved beside weights, buffers, optimiser,
      schedulers and message hub.
    * *Atomic and verified*: see :mod:`s3pt_mm.resume.checkpoint_files`. ``resume=True`` takes the
      newest whole checkpoint and names the torn ones it passed over.
    * *Finite*: nothing is written of a state that holds NaN or infinity.
    * *Polite*: SIGTERM, SIGINT and SIGHUP finish the iteration, save and leave with exit status
      128 + number. A second one does what it normally does. On several ranks one signalled rank is
      enough. One run a work folder (:class:`RunLock`); only its own checkpoints are pruned.
    * *Frugal*: old checkpoints go only after the new one is safe. A full disk ends the run with the
      last good checkpoint untouched.

    With several ranks a save in the middle of an accumulation waits for the optimiser step, because
    partial gradients differ from rank to rank; with one it does not.

    Args:
        interval: Epochs (``by_epoch=True``) or iterations between checkpoints; -1: none.
        interval_minutes: Also save whenever so many minutes have passed since the last checkpoint.
        signals: Names of the signals that mean "save and exit", e.g. add ``'SIGUSR1'`` for Slurm's
            ``--signal=USR1@120``.
        background: Write in a thread, from a copy on the host, while training goes on; the next
            save, and the end, wait for it and report what went wrong.
        kwargs: As mmengine's: ``by_epoch``, ``max_keep_ckpts``, ``save_last``, ``save_best``,
            ``rule``, ``out_dir``, ``filename_tmpl``, ``save_begin``, ``published_keys`` ...

    Raises:
        ValueError: ``save_optimizer=False`` and the like, which cannot be resumed from, or an
            unknown signal.
    """

    def __init__(
        self,
        interval: int = -1,
        interval_minutes: float | None = None,
        signals: Sequence[str] = ('SIGTERM', 'SIGINT', 'SIGHUP'),
        background: bool = False,
        **kwargs: Any,
    ) -> None:
        for name in ('save_optimizer', 'save_param_scheduler'):
            if not kwargs.get(name, True):
                raise ValueError(
                    f'SafeCheckpointHook promises exact resumption, which {name}=False breaks; use '
                    "mmengine's CheckpointHook for weights alone, or published_keys=['state_dict']."
                )
        super().__init__(interval=interval, **kwargs)
        self.interval_minutes = interval_minutes
        self.background = background
        self._signals = ExitSignals(signals)
        self._writer = BackgroundWriter()
        self._resumption = Resumption()
        self._lock: RunLock | None = None
        self._postponed = _NOTHING
        self._state: dict[str, Any] | None = None
        self._last_save = time.monotonic()

    # ---------------------------------------------------------------- resuming
    def before_run(self, runner: Runner) -> None:
        """Takes the work folder, and chooses the checkpoint before mmengine looks for one.

        Raises:
            CheckpointError: Another run is in this folder, or there is nothing whole to resume.
        """
        # One rank reads and judges, so that all take the same file.
        choice = self._on_main(lambda: self._begin(runner))
        if runner._resume:
            self._resumption.prepare(runner, choice)

    def _begin(self, runner: Runner) -> Choice | None:
        folder = Path(runner.work_dir)
        self._lock = RunLock(folder)
        self._lock.acquire()
        if not runner._resume:
            return None
        if self.out_dir is not None and Path(self.out_dir) != folder:
            folder = Path(self.out_dir) / folder.name
        return choose(runner._load_from, folder, self._templates())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Fits the checkpoint to this run, when it resumes; weights alone are mmengine's affair.

        Raises:
            CheckpointError: The checkpoint is of another recipe.
        """
        if runner._resume:
            self._resumption.load(runner, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Hands the loaded state to the loop and starts listening to signals.

        Raises:
            TypeError: The training loop has no safe points.
        """
        if not hasattr(runner.train_loop, 'resume_state'):
            raise TypeError(
                'SafeCheckpointHook needs a loop with safe points: set train_cfg.type to '
                "'ExactEpochTrainLoop' or 'ExactIterTrainLoop' (custom_imports: "
                "'s3pt_mm.resume'), or use mmengine's CheckpointHook; found "
                f'{type(runner.train_loop).__name__}.'
            )
        super().before_train(runner)
        self._resumption.apply(runner)
        runner.train_loop.resume_state = self._resumption.loaded
        self._resumption.loaded = None
        self._last_save = time.monotonic()
        if dist.is_main_process():
            remove_leftovers(self.out_dir)
        self._signals.listen()

    # ------------------------------------------------------------------ saving
    def at_safe_point(self, runner: Runner) -> None:
        """Called by the loop between iterations: saves if due, leaves if asked to."""
        request = max(self._postponed, agree(self._request(runner)))
        if request == _NOTHING:
            return
        done = runner.train_loop.accumulation_done()
        if not done and dist.get_world_size() > 1:
            self._postponed = request
            return
        names = non_finite(runner)
        bad = agree(len(names) + self._in_doubt(runner))
        if bad and not done:  # the step will be refused, and the state be good again
            self._postponed = request
            return
        self._postponed = _NOTHING
        if bad:
            self._refuse(runner, names)
        self._save(runner, self._file_name(runner))
        if request == _SAVE_AND_EXIT:
            self._leave(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A signal need not wait for the end of a validation in training (one process only)."""
        self.at_broken_validation(runner)

    def at_broken_validation(self, runner: Runner) -> None:
        """Called by the loop when a validation in training cannot go on: leaves if asked to."""
        validating = getattr(runner._train_loop, 'validation_pending', False)
        if self.asked_to_leave and validating and dist.get_world_size() == 1:
            if self._finite(runner):  # else the next safe point refuses, or waits for a good step
                self._save(runner, self._file_name(runner))
                self._leave(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Nothing: saving happens at the loop's safe points."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Nothing: saving happens at the loop's safe points."""

    def after_train(self, runner: Runner) -> None:
        """Publishes as mmengine does and gives the signals back."""
        self._finish()
        super().after_train(runner)
        self._signals.restore()

    def after_run(self, runner: Runner) -> None:
        """Gives the work folder back."""
        if self._lock is not None:
            self._lock.release()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds what mmengine does not save."""
        if self._state is not None:
            checkpoint[STATE_KEY] = self._state

    @property
    def asked_to_leave(self) -> bool:
        """Whether a signal has come: work that can be done again may be given up."""
        return self._signals.received is not None

    # --------------------------------------------------------------- internals
    def _finite(self, runner: Runner) -> bool:
        return not agree(len(non_finite(runner)) + self._in_doubt(runner))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if self._finite(runner):
            super()._save_best_checkpoint(runner, metrics)

    def _request(self, runner: Runner) -> int:
        """What this rank wants: nothing, a checkpoint, or a checkpoint and the exit."""
        if self._signals.received:
            return _SAVE_AND_EXIT
        loop = runner.train_loop
        if self.by_epoch:
            count = loop.epoch - self.save_begin if loop.batch == 0 else -1
        else:
            count = loop.iter - self.save_begin
        due = self.interval > 0 and count >= 0 and count % self.interval == 0
        due |= self.save_last and loop.iter >= loop.max_iters
        if self.interval_minutes is not None and dist.is_main_process():
            due |= time.monotonic() - self._last_save >= 60 * self.interval_minutes
        return _SAVE if due else _NOTHING

    @staticmethod
    def _in_doubt(runner: Runner) -> int:
        guard = getattr(runner.optim_wrapper, '_divergence_guard', None)
        return int(guard is not None and guard.in_doubt)

    def _file_name(self, runner: Runner) -> str:
        loop = runner.train_loop
        if not self.by_epoch:
            return self.filename_tmpl.format(loop.iter)
        if loop.batch == 0:
            return self.filename_tmpl.format(loop.epoch)
        return f'iter_{loop.iter}.pth'

    def _save(self, runner: Runner, name: str) -> None:
        """Saves a checkpoint to resume from, then removes those beyond ``max_keep_ckpts``."""
        self._finish()
        loop = runner.train_loop
        self.last_ckpt = str(Path(self.out_dir) / name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._state = dict(
            self._resumption.state(runner),
            position=loop.position(),
            random=dist.all_gather_object(loop.random_state()),
            buffers=dist.all_gather_object(loop.norm_buffers()),
            gradients=loop.partial_gradients(),
        )
        runner.logger.info(f'Saving checkpoint {name} ({loop.iter} iterations done)')
        try:
            self._save_atomically(
                runner,
                name,
                pointer=Path(runner.work_dir) / 'last_checkpoint',
                meta=dict(epoch=loop.epoch, iter=loop.iter),
                by_epoch=self.by_epoch,
                **self.args,
            )
        finally:
            self._state = None
        self._last_save = time.monotonic()

    def _refuse(self, runner: Runner, names: Sequence[str]) -> None:
        whole = newest_whole(Path(self.out_dir), self._templates())
        raise CheckpointError(
            f'Iteration {runner.iter}: {len(names)} tensors of the run are not finite (first: '
            f'{(names or ["on another rank"])[0]}), so nothing is saved. The last good checkpoint '
            f'is {whole}: lower the learning rate or lengthen the warm-up, then continue from it '
            'with --resume. DivergenceHook in custom_hooks stops before it comes to this.'
        )

    def _save_at_validation(self, runner: Runner) -> None:
        self._save(runner, self._file_name(runner))

    def _leave(self, runner: Runner) -> None:
        self._finish()
        self._signals.restore()
        received = self._signals.received
        runner.logger.info(
            f'Leaving after {received.name if received else "a signal to another rank"}; '
            f'continue from {self.last_ckpt} with --resume.'
        )
        runner.visualizer.close()
        self.after_run(runner)
        raise SystemExit(128 + (received or signal.SIGTERM))
