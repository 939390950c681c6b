"""The best checkpoint, written as safely as the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from s3pt_mm.resume.checkpoint_files import remove


class AtomicBestCheckpoint(CheckpointHook):
    """mmengine's ``save_best`` through temporary files; the part of ``SafeCheckpointHook`` that
    knows how mmengine keeps the best.

    Subclasses write (``_save_atomically``) and, after a new best score, save a checkpoint to
    resume from (``_save_at_validation``).
    """

    def _save_atomically(self, runner: Runner, name: str, **kwargs: Any) -> None:
        raise NotImplementedError

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
            for outdated in set(before.values()) - set(after.values()) - {None}:
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
