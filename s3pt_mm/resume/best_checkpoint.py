"""How checkpoints are written, the best too: whole or not at all, in the background if asked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from s3pt_mm.common.files import write_text
from s3pt_mm.resume.background import BackgroundWriter, collect, host_copy
from s3pt_mm.resume.checkpoint_files import (
    TEMPLATES,
    CheckpointError,
    prune,
    remove,
    write_checkpoint,
)
from s3pt_mm.resume.ranks import on_main
from s3pt_mm.resume.resumption import Resumption
from s3pt_mm.resume.run_lock import RunLock


class AtomicBestCheckpoint(CheckpointHook):
    """mmengine's ``CheckpointHook`` through temporary files: the part of ``SafeCheckpointHook``
    that writes, and that knows how mmengine keeps the best.

    Subclasses save a checkpoint to resume from after a new best score (``_save_at_validation``).
    """

    background: bool
    _writer: BackgroundWriter
    _lock: RunLock | None
    _resumption: Resumption

    def _save_atomically(
        self, runner: Runner, name: str, *, pointer: Path | None = None, **kwargs: Any
    ) -> None:
        """``runner.save_checkpoint`` by way of a temporary file; all ranks learn of a failure.

        Raises:
            CheckpointError: On all ranks, if the file could not be written.
        """
        path, iteration = Path(self.out_dir) / name, runner.train_loop.iter

        def write(content: dict[str, Any]) -> None:
            try:
                for companion in content.pop('write_beside', ()):  # before: whole, or not at all
                    companion()
                write_checkpoint(content, path, iteration=iteration, run=self._resumption.run)
            except OSError:
                if not path.exists():  # its companion alone is of no use, and takes room
                    remove(path)
                raise
            if pointer is not None:  # a checkpoint to resume from, not the best one
                write_text(pointer, str(path))
                prune(path, self.max_keep_ckpts, self._templates())

        def begin() -> None:
            assert self._lock is not None  # held from before_train to after_train
            self._lock.check()
            content = collect(runner, **kwargs)
            if self.background and pointer is not None:
                self._writer.start(functools.partial(write, host_copy(content)))
            else:
                write(content)

        self._on_main(begin)

    def _finish(self) -> None:
        """Waits for the checkpoint that is being written.

        Raises:
            CheckpointError: On all ranks, if it could not be.
        """
        if self.background:
            self._on_main(self._raise_what_the_writer_met)

    def _raise_what_the_writer_met(self) -> None:
        error = self._writer.finish()
        if isinstance(error, OSError):
            raise error
        if error is not None:
            raise CheckpointError(f'Writing a checkpoint failed: {error!r}') from error

    def _on_main(self, action: Callable[[], Any]) -> Any:
        """:func:`on_main`; a failure ends the run, so the work folder is given back."""
        try:
            return on_main(action, folder=Path(self.out_dir or '.'))
        except CheckpointError:
            if self._lock is not None:
                self._lock.release()
            raise

    def _templates(self) -> tuple[str, ...]:
        return tuple({self.filename_tmpl, *TEMPLATES})

    def _save_at_validation(self, runner: Runner) -> None:
        raise NotImplementedError

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # Called by mmengine after a new best score only, to store the score. The validation is
        # over.
        runner = runner._runner  # of the _AtomicRunner below
        runner.train_loop.validation_pending = False
        self._save_at_validation(runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """As mmengine's, but atomic, and the previous best goes after the new one is safe."""
        if not self.save_best or not hasattr(runner._train_loop, 'resume_state'):
            return
        before = self._best_paths()
        # With no previous best to remove, mmengine removes nothing.
        self._set_best_paths(dict.fromkeys(before))
        super()._save_best_checkpoint(_AtomicRunner(runner, self), metrics)
        after = {key: path or before.get(key) for key, path in self._best_paths().items()}
        self._set_best_paths(after)
        if dist.is_main_process():
            kept = set(after.values())
            for outdated in {path for path in before.values() if path} - kept:
                remove(Path(outdated))

    def _best_paths(self) -> dict[str, str | None]:
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict = dict(paths)


class _AtomicRunner:
    """The runner as mmengine's best-checkpoint code sees it: its saves go through temporary
    files."""

    def __init__(self, runner: Runner, hook: AtomicBestCheckpoint) -> None:
        self._runner = runner
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, **kwargs: Any) -> None:
        kwargs = {k: v for k, v in kwargs.items() if k not in ('file_client_args', 'backend_args')}
        self._hook._save_atomically(self._runner, filename, **kwargs)
