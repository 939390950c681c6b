"""What both exact loops share: the position of a run, its safe points, and going on from one."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import BaseLoop

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.common.models import unwrap
from s3pt_mm.resume.batches import ignore_worker_signals, keyed_batches, one_ahead
from s3pt_mm.resume.data_identity import fingerprint
from s3pt_mm.resume.norm_buffers import norm_buffers, restore_norm_buffers
from s3pt_mm.resume.random_state import get_random_state, seed_cpu_generators, set_random_state


class ExactResume(BaseLoop):
    """What both loops share: position, safe points, and going on from a saved position.

    A hook named anything may define ``at_safe_point(runner)``; it is called after every iteration
    with all counters advanced, *before* a validation that is due.
    """

    resume_state: Mapping[str, Any] | None = None  # set by SafeCheckpointHook.before_train
    validation_pending: bool = False
    max_worker_restarts: int = 10
    _held_random: dict[str, Any] | None = None
    _data: str | None = None
    _epoch: int
    _iter: int
    batch: int = 0  # batches of this epoch that are done (iteration-based: of the run)

    def batches(self, key: tuple[int, ...]) -> Generator[tuple[int, Any], None, None]:
        """``(index, batch)`` from batch ``self.batch`` on; with an accelerator one is under way.

        Where the model's preprocessor can ``send_ahead``, a batch travels while the one in front
        of it is computed.
        """
        found = keyed_batches(
            self.dataloader,
            start=self.batch,
            key=key,
            max_worker_restarts=self.max_worker_restarts,
        )
        preprocessor = getattr(unwrap(self.runner.model), 'data_preprocessor', None)
        if preprocessor is None or not hasattr(preprocessor, 'send_ahead'):
            return found
        on_host = torch.device(preprocessor.device).type == 'cpu'
        return found if on_host else one_ahead(found, preprocessor.send_ahead)

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
            data=self._fingerprint(),
        )

    def moved(self, then: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
        """A saved position in this run's steps: the same share of the epoch is done.

        Returns:
            The position, and what differs: name -> (then, now).
        """
        here = self.position()
        changed = {
            name: (then[name], here[name])
            for name in ('dataset_size', 'batch_size', 'world_size', 'data')
            if name in then and then[name] != here[name]
        }
        position = dict(then)
        if changed.keys() - {'data'}:
            done = then['batch'] * then['batch_size'] * then['world_size']
            total = here['batch_size'] * here['world_size']
            position.update(self._moved_to(then['epoch'], done, then['dataset_size'], total))
        return position, changed

    def _fingerprint(self) -> str:
        if self._data is None:
            self._data = fingerprint(self.dataloader.dataset)
        return self._data

    def _moved_to(self, epoch: int, done: int, size: int, total: int) -> dict[str, int]:
        """Batch and iteration after ``done`` samples of an epoch of ``size``, ``total`` a step."""
        raise NotImplementedError

    def random_state(self) -> dict[str, Any]:
        """This rank's random states; during a validation, those of the training it interrupts."""
        return self._held_random or get_random_state()

    def partial_gradients(self) -> dict[str, torch.Tensor]:
        """Gradients that wait for the rest of an accumulation, by parameter name; else empty."""
        optimised = {id(p) for group in self._param_groups() for p in group['params']}
        return {
            name: parameter.grad.detach().cpu()
            for name, parameter in unwrap(self.runner.model).named_parameters()
            if parameter.grad is not None and id(parameter) in optimised
        }

    def accumulation_done(self) -> bool:
        """Whether no gradient waits for the rest of an accumulation."""
        groups = self._param_groups()
        return all(parameter.grad is None for group in groups for parameter in group['params'])

    def _param_groups(self) -> list[dict[str, Any]]:
        groups = self.runner.optim_wrapper.param_groups
        return sum(groups.values(), []) if isinstance(groups, dict) else groups

    def norm_buffers(self) -> dict[str, torch.Tensor]:
        """Running statistics of this rank, which other ranks need not share."""
        found = norm_buffers(unwrap(self.runner.model))
        return {name: buffer.cpu() for name, buffer in found.items()}

    # ---------------------------------------------------------------- resuming
    def _go_on(self) -> Mapping[str, Any] | None:
        """Moves to the resumed position. Returns this rank's random states, to be set later."""
        self._require_hooks()
        state = self.resume_state
        if self._iter == 0:
            return None
        if state is None:
            self.batch = self._batch_without_state()
            print_log(
                f'The checkpoint at iteration {self._iter} holds no exact-resumption state (it was '
                'not written by SafeCheckpointHook); continuing with the right data but with new '
                'random states: not exact.',
                logger='current',
                level=logging.WARNING,
            )
            return None
        position = state['position']
        self.dataloader.sampler.seed = position['sampler_seed']
        self.validation_pending = position['validation_pending']
        self.batch = position['batch']
        self._restore_gradients(state['gradients'])
        if len(state.get('buffers', ())) == get_world_size():
            restore_norm_buffers(unwrap(self.runner.model), state['buffers'][get_rank()])
        ranks = state['random']
        return ranks[get_rank()] if len(ranks) == get_world_size() else None

    def _require_hooks(self) -> None:
        """Refuses to train a model whose ``required_hooks`` a config has lost.

        Raises:
            ConfigError: Names the hook and the line that brings it back.
        """
        model = unwrap(self.runner.model)
        there = {base.__name__ for hook in self.runner.hooks for base in type(hook).__mro__}
        for key, name in getattr(model, 'required_hooks', {}).items():
            if name not in there:
                raise ConfigError(
                    f'{type(model).__name__} would train without {name}: write '
                    f"default_hooks=dict({key}=dict(type='{name}')) into the config (the shipped "
                    'ones inherit it from configs/_base_/pretrain_runtime.py)'
                )

    def _say_if_done(self, done: bool) -> None:
        if self._iter > 0 and done and not self.validation_pending:
            print_log(
                f'Nothing left to do: the run in {self.runner.work_dir} has done its '
                f'{self._iter} iterations. A longer train_cfg goes on from here.',
                logger='current',
            )

    def _restore_gradients(self, gradients: Mapping[str, torch.Tensor]) -> None:
        parameters = dict(unwrap(self.runner.model).named_parameters())
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

    # -------------------------------------------------------------- validation
    def _validate(self) -> None:
        """Runs a due validation without touching the training's random generators."""
        if self.validation_pending:
            self._held_random = get_random_state()
            # Its own seed, so that a validation repeated after a stop gives the same figures.
            seed_cpu_generators(self.dataloader.sampler.seed, get_rank(), self._iter)
            try:
                self.runner.val_loop.run()
            except RuntimeError:
                # A signal to a whole group of processes, which asks to leave, ends data workers.
                self.runner.call_hook('at_broken_validation')
                raise
            set_random_state(self._held_random)
            self._held_random = None
            ignore_worker_signals()
        self.validation_pending = False

    def _safe_point(self) -> None:
        self.runner.call_hook('at_safe_point')
