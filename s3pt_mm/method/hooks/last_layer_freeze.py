"""Prototypes without gradient at the start of a run."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from s3pt_mm.common.models import unwrap


@HOOKS.register_module()
class LastLayerFreezeHook(Hook):
    """Freezes the student's prototype layers at first (supplement: 1 epoch for S/16, 3 for B/16).

    A frozen layer is a constant in the graph, so its gradient is not computed, and a parameter
    without gradient is neither moved nor decayed by the optimiser. Under DDP, which needs one from
    every parameter, it is zeros, and these are removed before the optimiser sees them.

    Args:
        epochs: Epochs with frozen prototypes.
        iterations: Frozen for so many iterations instead (for runs shorter than an epoch or two).
    """

    priority = 'NORMAL'

    def __init__(self, epochs: int = 0, iterations: int = 0) -> None:
        if epochs and iterations:
            raise ValueError(f'give epochs or iterations, not both: {epochs}, {iterations}')
        self.epochs = epochs
        self.iterations = iterations

    def before_train(self, runner: Runner) -> None:
        """Puts itself before the optimiser's step."""
        layers = unwrap(runner.model).student['head'].prototype_layers()

        def remove_gradients(*_: object) -> None:
            for layer in layers:
                if layer.frozen:
                    for parameter in layer.parameters():
                        parameter.grad = None

        self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(remove_gradients)

    def after_train(self, runner: Runner) -> None:
        """Leaves the optimiser."""
        self._handle.remove()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """See the class."""
        frozen = runner.epoch < self.epochs or runner.iter < self.iterations
        for layer in unwrap(runner.model).student['head'].prototype_layers():
            layer.frozen = frozen
