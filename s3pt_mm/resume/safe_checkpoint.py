"""Checkpoints that survive crashes, full disks and schedulers, and from which a run goes on
exactly."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine import dist
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from s3pt_mm.resume.best_checkpoint import AtomicBestCheckpoint
from s3pt_mm.resume.checkpoint_files import (
    CheckpointError,
    commit,
    fault,
    find_checkpoints,
    newest_whole,
    remove,
    temporary_path,
    write_text_atomically,
)

#: Key of a checkpoint under which everything lies that mmengine does not save.
STATE_KEY = 'exact_resume'

_NOTHING, _SAVE, _SAVE_AND_EXIT = 0, 1, 2


@HOOKS.register_module()
class SafeCheckpointHook(AtomicBestCheckpoint):
    """mmengine's ``CheckpointHook`` with promises; needs ``ExactEpochTrainLoop`` or
    ``ExactIterTrainLoop``.

    * *Exact*: position of the sampler, random states of every rank and gradients of an unfinished
      accumulation are saved beside weights, buffers, optimiser, schedulers and message hub.
    * *Atomic and verified*: see :mod:`s3pt_mm.resume.checkpoint_files`. ``resume=True`` takes the
      newest whole checkpoint and names the torn ones it passed over.
    * *Polite*: SIGTERM finishes the iteration, saves and leaves with exit status 143. A second one
      does what SIGTERM normally does. On several ranks one signalled rank is enough.
    * *Frugal*: old checkpoints go only after the new one is safe. A full disk ends the run with the
      last good checkpoint untouched.

    With several ranks a save in the middle of an accumulation waits for the optimiser step, because
    partial gradients differ from rank to rank; with one it does not.

    Args:
        interval: Epochs (``by_epoch=True``) or iterations between checkpoints; -1: none.
        interval_minutes: Also save whenever so many minutes have passed since the last checkpoint.
        signals: Names of the signals that mean "save and exit", e.g. add ``'SIGUSR1'`` for Slurm's
            ``--signal=USR1@120``.
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
        signals: Sequence[str] = ('SIGTERM',),
        **kwargs: Any,
    ) -> None:
        for name in ('save_optimizer', 'save_param_scheduler'):
            if not kwargs.get(name, True):
                raise ValueError(
                    f'SafeCheckpointHook promises exact resumption, which {name}=False breaks; use '
                    "mmengine's CheckpointHook for weights alone, or published_keys=['state_dict']."
                )
        super().__init__(interval=interval, **kwargs)
        unknown = [name for name in signals if not hasattr(signal, name)]
        if unknown:
            raise ValueError(f'unknown signals {unknown}; names are like SIGTERM and SIGUSR1')
        self.interval_minutes = interval_minutes
        self.signals = [getattr(signal, name) for name in signals]
        self._received: signal.Signals | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._postponed = _NOTHING
        self._loaded: Mapping[str, Any] | None = None
        self._state: dict[str, Any] | None = None
        self._last_save = time.monotonic()

    # ---------------------------------------------------------------- resuming
    def before_run(self, runner: Runner) -> None:
        """Chooses the checkpoint to resume from, before mmengine looks for one."""
        if not runner._resume:
            return
        # One rank reads and judges, so that all take the same file.
        answer = [self._choose(runner) if dist.is_main_process() else None]
        dist.broadcast_object_list(answer)
        path, complaint = answer[0]
        if complaint:
            raise CheckpointError(complaint)
        if path:
            runner._load_from = path

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keeps what the training loop needs to go on; the loop ignores it when not resuming.

        Raises:
            CheckpointError: The run resumes, but its optimiser groups its parameters otherwise.
        """
        self._loaded = checkpoint.get(STATE_KEY)
        if not runner._resume or 'param_groups' not in checkpoint.get('optimizer', {}):
            return
        # Not the wrapper's own list: it has a group more, mmengine's for the log.
        here = [len(group['params']) for group in runner.optim_wrapper.optimizer.param_groups]
        written = [len(group['params']) for group in checkpoint['optimizer']['param_groups']]
        if written != here:
            raise CheckpointError(
                f'{runner._load_from} was written by another recipe: its optimiser has groups of '
                f'{written} parameters, this run has {here} (optim_wrapper, frozen parts of the '
                f'model). Resume it with its own config ({runner.work_dir}/*/vis_data/config.py of '
                'the run that wrote it), or start anew with another --work-dir.'
            )

    def before_train(self, runner: Runner) -> None:
        """Hands the loaded state to the loop and starts listening to signals.

        Raises:
            TypeError: The training loop has no safe points.
        """
        if not hasattr(runner.train_loop, 'resume_state'):
            raise TypeError(
                'SafeCheckpointHook needs a loop with safe points: set train_cfg.type to '
                "'ExactEpochTrainLoop' or 'ExactIterTrainLoop' (custom_imports: 's3pt_mm.resume'), or use "  # noqa: E501
                f"mmengine's CheckpointHook; found {type(runner.train_loop).__name__}."
            )
        super().before_train(runner)
        runner.train_loop.resume_state = self._loaded
        self._loaded = None
        self._last_save = time.monotonic()
        if dist.is_main_process():
            for leftover in Path(self.out_dir).glob('.*.pth*.tmp'):
                leftover.unlink()
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                self._previous_handlers[number] = signal.signal(number, self._on_signal)

    # ------------------------------------------------------------------ saving
    def at_safe_point(self, runner: Runner) -> None:
        """Called by the loop between iterations: saves if due, leaves if asked to."""
        request = max(self._postponed, self._agree(self._request(runner)))
        if request == _NOTHING:
            return
        if dist.get_world_size() > 1 and not runner.train_loop.accumulation_done():
            self._postponed = request
            return
        self._postponed = _NOTHING
        self._save(runner, self._file_name(runner))
        if request == _SAVE_AND_EXIT:
            self._leave(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """A signal need not wait for the end of a validation in training (one process only)."""
        validating = getattr(runner._train_loop, 'validation_pending', False)
        if self._received is not None and validating and dist.get_world_size() == 1:
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
        super().after_train(runner)
        self._restore_handlers()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds what mmengine does not save."""
        if self._state is not None:
            checkpoint[STATE_KEY] = self._state

    # --------------------------------------------------------------- internals
    def _request(self, runner: Runner) -> int:
        """What this rank wants: nothing, a checkpoint, or a checkpoint and the exit."""
        if self._received is not None:
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
    def _agree(request: int) -> int:
        """The strongest request of all ranks."""
        if dist.get_world_size() == 1:
            return request
        strongest = torch.tensor(request)
        dist.all_reduce(strongest, op='max')
        return int(strongest)

    def _file_name(self, runner: Runner) -> str:
        loop = runner.train_loop
        if not self.by_epoch:
            return self.filename_tmpl.format(loop.iter)
        if loop.batch == 0:
            return self.filename_tmpl.format(loop.epoch)
        return f'iter_{loop.iter}.pth'

    def _save(self, runner: Runner, name: str) -> None:
        """Saves a checkpoint to resume from, then removes those beyond ``max_keep_ckpts``."""
        loop = runner.train_loop
        self.last_ckpt = str(Path(self.out_dir) / name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._state = dict(
            position=loop.position(),
            random=dist.all_gather_object(loop.random_state()),
            gradients=loop.partial_gradients(),
        )
        runner.logger.info(f'Saving checkpoint {name} ({loop.iter} iterations done)')
        try:
            self._save_atomically(
                runner,
                name,
                meta=dict(epoch=loop.epoch, iter=loop.iter),
                by_epoch=self.by_epoch,
                **self.args,
            )
        finally:
            self._state = None
        self._last_save = time.monotonic()
        if dist.is_main_process():
            write_text_atomically(Path(runner.work_dir) / 'last_checkpoint', self.last_ckpt)
            if self.max_keep_ckpts > 0:
                kept = find_checkpoints(Path(self.out_dir), self._templates())
                for outdated in kept[self.max_keep_ckpts :]:
                    remove(outdated.path)

    def _save_atomically(self, runner: Runner, name: str, **kwargs: Any) -> None:
        """``runner.save_checkpoint`` by way of a temporary file; all ranks learn of a failure.

        Raises:
            CheckpointError: On all ranks, if the file could not be written.
        """
        path = Path(self.out_dir) / name
        temporary = temporary_path(path)
        complaint = [None]
        if dist.is_main_process():
            try:
                runner.save_checkpoint(
                    str(self.out_dir), temporary.name, backend_args=self.backend_args, **kwargs
                )
                commit(temporary, path, iteration=runner.train_loop.iter)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                complaint = [self._complain(path, error)]
        dist.broadcast_object_list(complaint)
        if complaint[0]:
            runner.logger.error(complaint[0])
            raise CheckpointError(complaint[0])

    def _complain(self, path: Path, error: OSError) -> str:
        whole = newest_whole(path.parent, self._templates())
        free = shutil.disk_usage(path.parent).free / 2**20
        good = f'The last good checkpoint is {whole}' if whole else 'There is no earlier checkpoint'
        return (
            f'Saving {path} failed: {error.strerror or error} ({free:.0f} MiB free there). {good}. '
            'Make room, then continue with --resume.'
        )

    def _save_at_validation(self, runner: Runner) -> None:
        self._save(runner, self._file_name(runner))

    def _templates(self) -> set[str]:
        return {self.filename_tmpl, 'epoch_{}.pth', 'iter_{}.pth'}

    def _choose(self, runner: Runner) -> tuple[str | None, str | None]:
        """The file to resume from and, instead, what is wrong."""
        folder = Path(runner.work_dir)
        if self.out_dir is not None and Path(self.out_dir) != folder:
            folder = Path(self.out_dir) / folder.name
        named = runner._load_from
        if named is not None:
            # A name that was given by hand is never silently replaced by another.
            if not os.path.exists(named) or not (wrong := fault(Path(named))):
                return None, None
            others = [c.path for c in find_checkpoints(Path(named).parent, self._templates())]
            whole = next((p for p in others if p != Path(named) and not fault(p)), 'none')
            return None, f'{named} is {wrong}. The newest whole checkpoint beside it: {whole}.'
        refused = []
        for candidate in find_checkpoints(folder, self._templates()):
            wrong = fault(candidate.path)
            if wrong is None:
                return str(candidate.path), None
            refused.append(f'{candidate.path}: {wrong}')
            runner.logger.error(f'Not resuming from {refused[-1]}')
        if refused:
            listed = '\n  '.join(refused)
            return None, (
                f'No checkpoint in {folder} is whole:\n  {listed}\nDelete them to start anew.'
            )
        return None, None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:  # impatient: behave as if we were not here
            self._restore_handlers()
            os.kill(os.getpid(), number)
        self._received = signal.Signals(number)

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous_handlers.clear()

    def _leave(self, runner: Runner) -> None:
        self._restore_handlers()
        name = self._received.name if self._received else 'a signal to another rank'
        runner.logger.info(f'Leaving after {name}; continue from {self.last_ckpt} with --resume.')
        runner.visualizer.close()
        raise SystemExit(128 + (self._received or signal.SIGTERM))
