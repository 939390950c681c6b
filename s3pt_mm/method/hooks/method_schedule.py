"""Numbers of the method that change from epoch to epoch."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from s3pt_mm.common.models import unwrap


@HOOKS.register_module()
class MethodScheduleHook(Hook):
    """Moves attributes of the algorithm linearly over its first epochs, as DINO's schedule does.

    Epoch e has ``start + (end - start) * e / (epochs - 1)`` until ``epochs - 1``, then ``end``. It
    also tells the model its epoch. Values follow from the epoch alone: nothing to save or resume.

    Args:
        linear: attribute name -> dict(start, end, epochs), e.g.
            ``dict(teacher_temperature=dict(start=0.04, end=0.07, epochs=30))``.

    Raises:
        AttributeError: Before training, if the model lacks one of the attributes.
        ValueError: If a schedule spans less than one epoch.
    """

    priority = 'NORMAL'

    def __init__(self, linear: dict[str, dict] | None = None) -> None:
        self.linear = dict(linear or {})
        for name, schedule in self.linear.items():
            if schedule['epochs'] < 1:
                raise ValueError(f'{name}: a schedule spans at least one epoch, got {schedule}')

    def value(self, name: str, epoch: int) -> float:
        """Value of one attribute in ``epoch`` (from 0)."""
        start, end, epochs = (self.linear[name][key] for key in ('start', 'end', 'epochs'))
        share = 1.0 if epochs == 1 else min(epoch / (epochs - 1), 1.0)
        return start + (end - start) * share

    def before_train(self, runner: Runner) -> None:
        """Prepare for the run."""
        model = unwrap(runner.model)
        for name in (*self.linear, 'epoch'):
            if not hasattr(model, name):
                raise AttributeError(f'MethodScheduleHook: {type(model).__name__} has no {name!r}')

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """See the class."""
        # Every iteration, not every epoch: a run may resume in the middle of one.
        model = unwrap(runner.model)
        model.epoch = runner.epoch
        for name in self.linear:
            value = self.value(name, runner.epoch)
            setattr(model, name, value)
            runner.message_hub.update_scalar(f'train/{name}', value)
