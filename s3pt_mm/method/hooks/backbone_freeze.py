"""A backbone without steps at the start of a run: its heads learn first."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch.utils.hooks import RemovableHandle

from s3pt_mm.common.models import unwrap


@HOOKS.register_module()
class BackboneFreezeHook(Hook):
    """Keeps the student's backbone at trained weights until its new heads have learnt something.

    Gradients are computed and thrown away before the optimiser's step, so that DDP and gradient
    clipping see the same parameters throughout. Choice of this package, for continued runs.

    Args:
        epochs: Epochs with a frozen backbone.
    """

    def __init__(self, epochs: int = 1) -> None:
        self.epochs = epochs
        self._handle: RemovableHandle | None = None

    def before_train(self, runner: Runner) -> None:
        """Puts itself before the optimiser's step."""
        backbone = unwrap(runner.model).student['backbone']

        def remove_gradients(*_: object) -> None:
            if runner.epoch < self.epochs:
                for parameter in backbone.parameters():
                    parameter.grad = None

        self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(remove_gradients)

    def after_train(self, runner: Runner) -> None:
        """Leaves the optimiser as it was."""
        if self._handle is not None:
            self._handle.remove()
