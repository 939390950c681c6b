"""From which checkpoint a run goes on, as whom, and with which schedules."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from mmengine.logging import print_log
from mmengine.runner import Runner

from s3pt_mm.common.checksums import fault
from s3pt_mm.resume import schedules
from s3pt_mm.resume.checkpoint_files import (
    CheckpointError,
    describe,
    find_checkpoints,
    of_the_last_run,
)
from s3pt_mm.resume.recipe import changes, recipe_of, require_same_recipe, touches_rates

#: Key of a checkpoint under which everything lies that mmengine does not save.
STATE_KEY = 'exact_resume'


@dataclass
class Choice:
    """What to resume from.

    Attributes:
        path: The file; None: start anew.
        branch: The run has come further already, so what follows is another run.
    """

    path: str | None
    branch: bool = False


def choose(named: str | None, folder: Path, templates: Iterable[str]) -> Choice:
    """The file to resume from: the one named by hand, else the newest whole one of the last run.

    Raises:
        CheckpointError: A named file is torn (it is never silently replaced), or none is whole.
    """
    found = find_checkpoints(folder, templates)
    if named is not None:
        path = Path(named)
        if '://' not in named and (wrong := fault(path)):
            others = [one.path for one in find_checkpoints(path.parent, templates)]
            whole = next((p for p in others if p != path and not fault(p)), 'none')
            raise CheckpointError(
                f'{named} is {wrong}. The newest whole checkpoint beside it: {whole}.'
            )
        this = describe(path)
        further = [one for one in found if one.run == this.run and one.iteration > this.iteration]
        return Choice(named, branch=any(fault(one.path) is None for one in further))
    refused = []
    for candidate in of_the_last_run(folder, found):
        wrong = fault(candidate.path)
        if wrong is None:
            return Choice(str(candidate.path))
        refused.append(f'{candidate.path}: {wrong}')
        print_log(f'Not resuming from {refused[-1]}', logger='current', level=logging.ERROR)
    if refused:
        listed = '; '.join(refused)
        raise CheckpointError(
            f'No checkpoint of the last run in {folder} is whole: {listed}. Delete them to start '
            'anew, or name another with --resume FILE.'
        )
    print_log(f'No checkpoint in {folder}, starting anew.', logger='current')
    return Choice(None)


class Lengths(TypedDict):
    """How long a run is; a loop by iterations has no epochs."""

    epochs: int | None
    iterations: int


class Resumption:
    """A run's identity and what its schedules were made for; both go into every checkpoint.

    Attributes:
        run: Tells this run's checkpoints from others'; kept when it is resumed.
        loaded: What the training loop needs to go on, until it has taken it.
    """

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex[:12]
        self.loaded: dict[str, Any] | None = None
        self._branch = False
        self._hyperparameters: list[dict[str, Any]] = []
        self._lengths: Lengths | None = None
        self._schedules: list[dict[str, Any]] | None = None

    def prepare(self, runner: Runner, choice: Choice) -> None:
        """Before mmengine loads: take the choice, remember the config's own rates."""
        if choice.path is None:
            runner._resume = False
            return
        runner._load_from, self._branch = os.fspath(choice.path), choice.branch
        self._hyperparameters = schedules.hyperparameters(runner)

    def load(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Before mmengine takes over a checkpoint: refuse another recipe's, fit it to this run.

        Raises:
            CheckpointError: See :func:`s3pt_mm.resume.recipe.require_same_recipe`.
        """
        state = checkpoint.get(STATE_KEY) or {}
        then = state.get('recipe')
        require_same_recipe(runner, checkpoint, then)
        if not self._branch:
            self.run = state.get('run', self.run)
        now, loop = recipe_of(runner), runner.train_loop
        changed = changes(then, now) if then else {}
        moved = {}
        if state:
            state['position'], moved = loop.moved(state['position'])
            checkpoint['meta'].update(
                epoch=state['position']['epoch'], iter=state['position']['iter']
            )
            if moved:
                state['gradients'] = {}
        self.loaded = state or None
        if changed or moved:
            listed = dict(list({**moved, **changed}.items())[:20])
            print_log(
                f'Resuming with other settings than the checkpoint was written with (then, now): '
                f'{listed}.'
                + ' The run continues at the same share of the epoch, but not exactly.'
                * bool(moved),
                logger='current',
                level=logging.WARNING,
            )
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        lengths = Lengths(epochs=info.get('max_epochs'), iterations=info.get('max_iters'))
        before: Lengths = state.get('lengths', lengths)
        self._lengths, here = before, _lengths(loop)
        longer = None not in lengths.values() and lengths['iterations'] != here['iterations']
        if touches_rates(changed) or longer:
            self._fit_schedules(runner, checkpoint, before, here)

    def _fit_schedules(
        self, runner: Runner, checkpoint: dict[str, Any], before: Lengths, here: Lengths
    ) -> None:
        configs = runner.cfg.get('param_scheduler') or []
        configs = [configs] if isinstance(configs, dict) else list(configs)
        if isinstance(runner.param_schedulers, dict):
            raise CheckpointError(
                f'{runner._load_from}: schedules of several optimisers cannot be computed anew; '
                'resume with the length, rates and schedules that the run began with.'
            )
        self._schedules = configs
        if schedules.ends(configs, **here):  # the config was written, or moved, for this length
            self._lengths = here
        else:
            then, now = before['epochs'], here['epochs']
            epochs = None if then is None or now is None else (then, now)
            iterations = (before['iterations'], here['iterations'])
            self._schedules = schedules.stretch(configs, epochs=epochs, iterations=iterations)
        if configs and not schedules.ends(self._schedules, **here):
            print_log(
                f'No schedule ends with the run ({here}): beyond its end each keeps its last '
                'value. Set param_scheduler to fit.',
                logger='current',
                level=logging.WARNING,
            )
        checkpoint.pop('param_schedulers', None)  # else mmengine brings the old ones back

    def apply(self, runner: Runner) -> None:
        """After mmengine loaded: schedules for this run's length and rates, if they changed."""
        if self._schedules is None:
            return
        rates = schedules.rebuild(runner, self._hyperparameters, self._schedules)
        print_log(
            f'Schedules computed anew for {_lengths(runner.train_loop)}; learning rates at '
            f'iteration {runner.iter}: {rates}.',
            logger='current',
            level=logging.WARNING,
        )
        self._schedules = None

    def state(self, runner: Runner) -> dict[str, Any]:
        """What a checkpoint says of its run."""
        lengths = self._lengths or _lengths(runner.train_loop)
        return dict(run=self.run, recipe=recipe_of(runner), lengths=lengths)


def _lengths(loop: Any) -> Lengths:
    return Lengths(
        epochs=loop.max_epochs if hasattr(loop, 'run_epoch') else None, iterations=loop.max_iters
    )
