"""A run that could not be evaluated at its end does not start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmdet3d.evaluation.metrics import NuScenesMetric
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from nuscenes.utils.splits import create_splits_scenes

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.detection.metrics.devkit_metric import VALIDATION_SPLITS
from s3pt_mm.detection.metrics.range_metric import NuScenesRangeMetric


@HOOKS.register_module()
class SplitCheckHook(Hook):
    """Compares the validation (test) data with the split that nuScenes' evaluation wants whole.

    The devkit asserts it after all samples are predicted, at the end of training. Only the two
    tables that tell the split are read.
    """

    def before_train(self, runner: Runner) -> None:
        """Look at the validation that comes later."""
        self._check(runner._val_loop, 'val_evaluator')

    def before_test(self, runner: Runner) -> None:
        """Look at the test data."""
        self._check(runner._test_loop, 'test_evaluator')

    @staticmethod
    def _check(loop: Any, key: str) -> None:
        dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
        if dataset is None:
            return
        tokens = {dataset.get_data_info(index)['token'] for index in range(len(dataset))}
        for metric in loop.evaluator.metrics:
            ranges = isinstance(metric, NuScenesRangeMetric) and metric.split != 'seen'
            official = isinstance(metric, NuScenesMetric) and not metric.format_only
            if ranges or official:
                split = metric.split if ranges else None
                check_split(
                    tokens,
                    root=Path(getattr(metric, 'data_root', dataset.data_root)),
                    version=dataset.metainfo.get('version', ''),
                    split=split,
                    ann_file=dataset.ann_file,
                    key=key,
                )


def check_split(
    tokens: set[str], *, root: Path, version: str, split: str | None, ann_file: str, key: str
) -> None:
    """Refuse samples that are not exactly those of a split with ground truth.

    Raises:
        ConfigError: names the info file, both numbers and the remedy.
    """
    split = split or VALIDATION_SPLITS.get(version)
    if split is None:
        raise ConfigError(
            f'{ann_file} is of {version or "no version"}, which has no ground truth to evaluate: '
            f'set {key}.format_only=True and {key}.jsonfile_prefix=FOLDER for a submission'
        )
    scenes, samples = (_table(root / version / name) for name in ('scene.json', 'sample.json'))
    names = set(create_splits_scenes().get(split, ()))
    wanted = {scene['token'] for scene in scenes if scene['name'] in names}
    whole = {sample['token'] for sample in samples if sample['scene_token'] in wanted}
    if tokens != whole:
        raise ConfigError(
            f'{ann_file} has {len(tokens & whole)} of the {len(whole)} samples of {split} and '
            f'{len(tokens - whole)} others, and nuScenes evaluates exactly a split: for a part, '
            f"{key}=dict(_delete_=True, type='NuScenesSubsetMetric', data_root=...)"
        )


def _table(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'{path}: evaluation needs the tables that the info file was made from, and this one '
            f'cannot be read ({error}); set data_root to their folder'
        ) from error
