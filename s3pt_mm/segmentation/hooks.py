"""Checks that a run starts with: data set, head and checkpoint speak of the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from s3pt_mm.common.models import differences, shortened, unwrap, weights_of


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """An error where mmengine would warn and go on with a half-loaded head.

    Args:
        check_test: Compare the test data set's classes too; switched off when a model is tested on
            another data set through a class mapping.
    """

    def __init__(self, check_test: bool = True) -> None:
        self.check_test = check_test

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare a segmentor's checkpoint with the model, names and shapes.

        Raises:
            ValueError: They differ; the message names the file and both values.
        """
        path = getattr(runner, '_load_from', None)
        model = unwrap(runner.model)
        theirs = weights_of(checkpoint)
        if found := differences(model.state_dict(), theirs):
            classes = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
            raise ValueError(
                f'Checkpoint {path} does not fit the model: {shortened(found)}. The model has '
                f'{model.decode_head.num_classes} '
                f'classes; the checkpoint was trained on {_listed(classes.get("classes"))}.'
            )
        trained_on = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')
        if self.check_test and trained_on is not None:
            for loader in (runner._train_dataloader, runner._test_dataloader):
                classes = _classes(loader)
                if classes is not None and list(classes) != list(trained_on):
                    raise ValueError(
                        f'Checkpoint {path} was trained on {_listed(trained_on)}, but the data set '
                        f'has {_listed(classes)}.'
                    )

    def before_train(self, runner: Runner) -> None:
        """Compare the training data set's number of classes with the head's."""
        self._compare(runner, runner.train_dataloader, 'training')

    def before_val(self, runner: Runner) -> None:
        """Compare the validation data set's number of classes with the head's."""
        self._compare(runner, runner.val_dataloader, 'validation')

    def before_test(self, runner: Runner) -> None:
        """Compare the test data set's number of classes with the head's."""
        if self.check_test:
            self._compare(runner, runner.test_dataloader, 'test')

    @staticmethod
    def _compare(runner: Runner, loader: Any, which: str) -> None:
        classes = _classes(loader)
        head = unwrap(runner.model).decode_head
        if classes is not None and len(classes) != head.num_classes:
            source = getattr(loader.dataset, 'ann_file', '') or loader.dataset.data_prefix
            raise ValueError(
                f'The {which} data set {source} has {_listed(classes)}, the head '
                f'{type(head).__name__} {head.num_classes}: set model.decode_head.num_classes.'
            )


def _classes(loader: Any) -> Sequence[str] | None:
    if loader is None or isinstance(loader, Mapping):
        return None
    return loader.dataset.metainfo.get('classes')


def _listed(classes: Sequence[str] | None) -> str:
    return 'unknown classes' if classes is None else f'{len(classes)} classes {tuple(classes)}'
