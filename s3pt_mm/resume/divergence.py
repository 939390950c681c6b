"""Stops or skips when training goes wrong, before the wrong step is taken."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from s3pt_mm.common.files import write_json
from s3pt_mm.common.host import fetch
from s3pt_mm.common.models import unwrap
from s3pt_mm.resume.norm_buffers import norm_buffers, restore_norm_buffers

_STOP, _SKIP, _WARN, _OFF = 'stop', 'skip', 'warn', 'off'


class TrainingDiverged(RuntimeError):
    """Raised by the policy ``stop``; parameters and the optimiser's state are those of the last
    good step."""


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Guards the optimiser's step against non-finite numbers, and watches for collapse.

    *Non-finite loss or gradient, on any rank.* The optimiser's step is not taken. ``stop`` ends
    the run; ``skip`` drops this step's gradients (those of the whole accumulation), has the model
    drop what it would have moved with the step (its ``forget_step``, where it has one: this
    package's methods move centres, memory and teacher after the optimiser's step), and goes on;
    after ``max_skips`` skipped steps in a row it stops. With a loss scaler (fp16), non-finite
    *gradients* are its daily business and left to it; a scale below 1 counts as divergence instead.

    *Collapse*, from what the algorithm logs: ``teacher_entropy`` below ``entropy_floor``
    (everything on one prototype) or ``teacher_kl_uniform`` below ``kl_floor`` (everything alike),
    both in nats, for ``patience`` iterations in a row. Uniform teachers are normal at the start:
    see ``begin``.

    Either way ``<work_dir>/divergence/iter_<n>.json`` gets the batch's files, their indices, seeds
    and epoch (which reproduce the views exactly), the losses and the reason.

    All thresholds are choices of this package.

    Args:
        non_finite: ``stop`` or ``skip``.
        max_skips: Skipped steps in a row before stopping.
        collapse: ``stop``, ``warn`` or ``off``.
        entropy_floor: Nats.
        kl_floor: Nats.
        patience: Iterations in a row.
        begin: Iterations before which collapse is not looked for.
    """

    # Before the hooks that act on a finished iteration, above all the teacher's update.
    priority = 'VERY_HIGH'

    def __init__(
        self,
        *,
        non_finite: str = _STOP,
        max_skips: int = 10,
        collapse: str = _WARN,
        entropy_floor: float = 1e-2,
        kl_floor: float = 1e-3,
        patience: int = 500,
        begin: int = 1000,
    ) -> None:
        if non_finite not in (_STOP, _SKIP):
            raise ValueError(f"non_finite is 'stop' or 'skip', not {non_finite!r}")
        if collapse not in (_STOP, _WARN, _OFF):
            raise ValueError(f"collapse is 'stop', 'warn' or 'off', not {collapse!r}")
        self.non_finite = non_finite
        self.max_skips = max_skips
        self.collapse = collapse
        self.entropy_floor = entropy_floor
        self.kl_floor = kl_floor
        self.patience = patience
        self.begin = begin
        self._skips = 0
        self._collapsed_for = 0
        self._bad_loss: Tensor | None = None
        self._verdict: Callable[[], Tensor] | None = None
        self._batch: Any = None
        self._restored: Mapping[str, int] | None = None
        self._statistics: dict[str, Tensor] = {}

    # --------------------------------------------------------- before the step
    def before_train(self, runner: Runner) -> None:
        """Puts the guard between the gradients and the optimiser.

        Raises:
            TypeError: Several optimisers, whose order of steps only the model knows.
        """
        wrapper = runner.optim_wrapper
        if isinstance(getattr(wrapper, 'optim_wrappers', None), dict):
            raise TypeError('DivergenceHook guards one optimiser; found an OptimWrapperDict.')
        if self._restored is not None:
            self._skips, self._collapsed_for = (
                self._restored['skips'],
                self._restored['collapsed_for'],
            )
            self._restored = None
        if getattr(wrapper, '_divergence_guard', None) is self:
            return
        wrapper._divergence_guard = self
        update_params, step = wrapper.update_params, wrapper.step
        should_update = wrapper.should_update

        def guarded_update(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            bad = ~torch.isfinite(loss.detach()).all()
            # Backward runs all the same: the other ranks wait in its all-reduce.
            self._bad_loss = bad if self._bad_loss is None else self._bad_loss | bad
            self._stepped = True
            if _scaler(wrapper) is not None:
                # All that it looks at is there, so the host reads it while the device goes back.
                self._verdict = self._judge(wrapper)
            update_params(loss, *args, **kwargs)

        @functools.wraps(step)  # with the mark that schedulers look for
        def guarded_step(**kwargs: Any) -> None:
            reason = self._reason(wrapper)
            self._bad_loss = self._verdict = None
            if reason is None:
                self._skips = 0
                step(**kwargs)
            else:
                self._stepped = False
                self._refuse(runner, reason)

        def should_update_unless_refused() -> bool:
            return should_update() and self._stepped

        wrapper.update_params, wrapper.step = guarded_update, guarded_step
        # TeacherUpdateHook asks this after the iteration: no step, no teacher update.
        wrapper.should_update = should_update_unless_refused
        self._stepped = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remembers the batch and, when skipping, the statistics that a forward pass moves."""
        self._batch = data_batch
        if self.non_finite == _SKIP and self._bad_loss is None:
            self._statistics = norm_buffers(unwrap(runner.model))

    @property
    def in_doubt(self) -> bool:
        """Whether a batch since the last step was bad, so that the next step will be refused."""
        return self._bad_loss is not None and bool(self._bad_loss)

    def _reason(self, wrapper: Any) -> str | None:
        """Why the step must not be taken; the same on all ranks."""
        loss_is_bad, gradient_is_bad = (self._verdict or self._judge(wrapper))().tolist()
        if loss_is_bad:
            return 'the loss is not finite'
        if gradient_is_bad:
            scaled = _scaler(wrapper) is not None
            return 'the loss scale fell below 1' if scaled else 'a gradient is not finite'
        return None

    def _judge(self, wrapper: Any) -> Callable[[], Tensor]:
        """Begin to fetch (2,): any rank's loss is bad, any rank's gradient or loss scale."""
        scaler = _scaler(wrapper)
        bad_loss = torch.zeros(()) if self._bad_loss is None else self._bad_loss.float()
        if scaler is not None:
            scale = scaler._get_scale_async()  # as it lies on the device; None before the first use
            bad_gradient = torch.zeros_like(bad_loss) if scale is None else (scale < 1.0).float()
        else:
            parameters = (p for group in wrapper.param_groups for p in group['params'])
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
            bad_gradient = (~torch.isfinite(norm)).float()
        verdict = torch.stack([bad_loss.to(bad_gradient.device), bad_gradient])
        dist.all_reduce(verdict, op='max')
        return fetch(verdict)

    def _refuse(self, runner: Runner, reason: str) -> None:
        self._skips += 1
        path = self._report(runner, reason)
        if self.non_finite == _SKIP:
            getattr(unwrap(runner.model), 'forget_step', lambda: None)()
            restore_norm_buffers(unwrap(runner.model), self._statistics)
            if self._skips <= self.max_skips:
                runner.logger.warning(
                    f'Iteration {runner.iter + 1}: {reason}; step skipped ({self._skips} in a '
                    f'row), '
                    f'batch listed in {path}.'
                )
                return
            reason = f'{reason}, {self._skips} steps in a row'
        raise TrainingDiverged(
            f'Iteration {runner.iter + 1}: {reason}. No step was taken; the batch is listed in '
            f'{path}. '
            'Look at its files, lower the learning rate or lengthen the warm-up, then continue '
            'from the '
            'last checkpoint with --resume.'
        )

    # ---------------------------------------------------------- after the step
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Counts iterations in collapse."""
        if self.collapse == _OFF or runner.iter < self.begin:
            return
        entropy, kl = _teacher_health(outputs)
        if entropy is not None and entropy < self.entropy_floor:
            sign = f'teacher entropy {entropy:.2e} < {self.entropy_floor:.0e} nats (one prototype takes all)'  # noqa: E501
        elif kl is not None and kl < self.kl_floor:
            sign = f'teacher KL to uniform {kl:.2e} < {self.kl_floor:.0e} nats (all outputs alike)'
        else:
            self._collapsed_for = 0
            return
        self._collapsed_for += 1
        if self._collapsed_for % self.patience:
            return
        message = (
            f'Iteration {runner.iter + 1}: collapse, {sign}, for {self._collapsed_for} iterations'
        )
        path = self._report(runner, message)
        if self.collapse == _STOP:
            raise TrainingDiverged(f'{message}; last batch listed in {path}.')
        runner.logger.warning(f'{message}; last batch listed in {path}.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The counters belong to the run."""
        checkpoint['divergence'] = {'skips': self._skips, 'collapsed_for': self._collapsed_for}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the counters back when the run is resumed."""
        self._restored = checkpoint.get('divergence') if runner._resume else None

    def _report(self, runner: Runner, reason: str) -> Path:
        """Writes which samples every rank held. Returns the file."""
        ranks = dist.all_gather_object(_describe(self._batch))
        path = Path(runner.work_dir) / 'divergence' / f'iter_{runner.iter + 1}.json'
        if dist.is_main_process():
            history = runner.message_hub.log_scalars
            last = {key: float(buffer.current()) for key, buffer in history.items()}
            report = {
                'reason': reason,
                'iteration': runner.iter + 1,
                'epoch': runner.epoch,
                'samples_of_ranks': ranks,
                'last_logged': {k: v if math.isfinite(v) else str(v) for k, v in last.items()},
            }
            write_json(path, report)
        return path


def _scaler(wrapper: Any) -> Any:
    """The loss scaler that judges gradients by itself; None where there is none."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _teacher_health(outputs: Any) -> tuple[float | None, float | None]:
    """Teacher entropy and KL to uniform, means over ranks, so that all ranks judge alike.

    Each rank logs its own images' values; were one to see collapse alone, it would wait for the
    others in the report's collective for ever.
    """
    logged = outputs if isinstance(outputs, Mapping) else {}
    values = [logged.get(key) for key in ('teacher_entropy', 'teacher_kl_uniform')]
    mean = torch.tensor([math.nan if value is None else float(value) for value in values])
    dist.all_reduce(mean, op='mean')
    entropy, kl = mean.tolist()
    return None if values[0] is None else entropy, None if values[1] is None else kl


def _describe(batch: Any) -> list[dict[str, Any]]:
    """File names and keys of a batch's samples, as far as the host library tells."""
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
    described = []
    for sample in samples or []:
        entry = {}
        for name in ('img_path', 'filename', 'lidar_path', 'token', 'sample_idx', 'sample_seed'):
            value = sample.get(name) if hasattr(sample, 'get') else None
            if isinstance(value, Tensor):
                value = value.tolist()
            if value is not None:
                entry[name] = int(value) if isinstance(value, int) else value
        index = sample.get('sample_idx') if hasattr(sample, 'get') else None
        for name in ('seed', 'epoch'):
            if hasattr(index, name):
                entry[f'sampler_{name}'] = getattr(index, name)
        described.append(entry)
    return described
