"""nuScenes' own detection evaluation, on boxes in memory, any samples, ranges and classes."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
)
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig, DetectionMetrics
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.splits import create_splits_scenes

EVAL_VERSION = 'detection_cvpr_2019'


def detection_config(
    *, max_range: float | None = None, classes: Sequence[str] | None = None
) -> DetectionConfig:
    """The official setting, with another range or fewer classes if asked.

    Args:
        max_range: One range for every class, metres, instead of the official 50/40/30.
        classes: Classes that are evaluated and averaged over; all ten by default.

    Raises:
        ValueError: A class is none of nuScenes' detection classes, or there is none.
    """
    config = config_factory(EVAL_VERSION)
    if max_range is not None:
        config.class_range = dict.fromkeys(config.class_range, float(max_range))
    chosen = list(config.class_range) if classes is None else list(classes)
    strangers = sorted(set(chosen) - set(DETECTION_NAMES))
    if strangers or not chosen:
        raise ValueError(
            f'no class to evaluate, or unknown classes {strangers}; nuScenes has {DETECTION_NAMES}'
        )
    config.class_names = chosen
    return config


def split_tokens(nusc: NuScenes, split: str) -> list[str]:
    """Sample tokens of an official split, in the order of the tables.

    Raises:
        ValueError: The split is unknown or has no sample in these tables.
    """
    splits = create_splits_scenes()
    if split not in splits:
        raise ValueError(f'unknown nuScenes split {split!r}; known: {sorted(splits)}')
    names = set(splits[split])
    scenes = {scene['token'] for scene in nusc.scene if scene['name'] in names}
    tokens = [sample['token'] for sample in nusc.sample if sample['scene_token'] in scenes]
    if not tokens:
        raise ValueError(f'{nusc.dataroot}/{nusc.version} has no sample of split {split!r}')
    return tokens


def ground_truth(nusc: NuScenes, tokens: Iterable[str]) -> EvalBoxes:
    """True boxes of the samples, global coordinates, with their place relative to the ego."""
    boxes = load_gt_of_sample_tokens(nusc, list(tokens), DetectionBox)
    return add_center_dist(nusc, boxes)


def predictions(nusc: NuScenes, results: Mapping[str, Sequence[Mapping]]) -> EvalBoxes:
    """Boxes of a submission's ``results`` (sample token -> boxes), with their place likewise.

    Raises:
        ValueError: A sample has more boxes than nuScenes allows.
    """
    limit = config_factory(EVAL_VERSION).max_boxes_per_sample
    for token, boxes in results.items():
        if len(boxes) > limit:
            raise ValueError(
                f'sample {token} has {len(boxes)} predicted boxes, nuScenes allows {limit}; lower '
                "max_num of the model's box coder"
            )
    return add_center_dist(nusc, EvalBoxes.deserialize(results, DetectionBox))


def evaluate(
    nusc: NuScenes, truth: EvalBoxes, predicted: EvalBoxes, config: DetectionConfig
) -> DetectionMetrics:
    """Runs nuscenes-devkit's evaluation; neither set of boxes is changed.

    Boxes outside ``config.class_range``, without LiDAR and radar points, and two-wheelers inside a
    bicycle rack are left out by the devkit's own filter.

    Raises:
        ValueError: Truth and prediction are of different samples.
    """
    if set(truth.sample_tokens) != set(predicted.sample_tokens):
        lacking = sorted(set(truth.sample_tokens) - set(predicted.sample_tokens))
        extra = sorted(set(predicted.sample_tokens) - set(truth.sample_tokens))
        raise ValueError(
            f'predictions do not fit the samples to evaluate: {len(lacking)} samples without '
            f'prediction (first: {lacking[:1]}), {len(extra)} unknown samples (first: {extra[:1]})'
        )
    metrics, _ = _BoxesEval(nusc, truth, predicted, config).evaluate()
    return metrics


def filtered(nusc: NuScenes, boxes: EvalBoxes, config: DetectionConfig) -> EvalBoxes:
    """A copy cut by the devkit's own filter: range, points on the box, bicycle racks."""
    copy = EvalBoxes()
    for token in boxes.sample_tokens:
        copy.add_boxes(token, list(boxes[token]))
    # The devkit's filter asks the first box for its type and refuses a set without any.
    return filter_eval_boxes(nusc, copy, config.class_range) if copy.all else copy


def classes_present(nusc: NuScenes, truth: EvalBoxes, config: DetectionConfig) -> list[str]:
    """Classes of the configuration that have a true box left to find."""
    found = {box.detection_name for box in filtered(nusc, truth, config).all}
    return [name for name in config.class_names if name in found]


def summary(metrics: DetectionMetrics) -> dict[str, float]:
    """mAP, NDS, the five true-positive errors and each class's AP, under their usual names."""
    names = {
        'trans_err': 'mATE', 'scale_err': 'mASE', 'orient_err': 'mAOE',
        'vel_err': 'mAVE', 'attr_err': 'mAAE',
    }  # fmt: skip
    with warnings.catch_warnings():
        # Cones and barriers have no orientation, velocity or attribute error: NaN if alone.
        warnings.filterwarnings('ignore', 'Mean of empty slice')
        figures: dict[str, Any] = {'mAP': metrics.mean_ap, 'NDS': metrics.nd_score}
        figures.update({names[key]: value for key, value in metrics.tp_errors.items()})
    figures.update({f'{name}_AP': float(ap) for name, ap in metrics.mean_dist_aps.items()})
    return figures


class _BoxesEval(DetectionEval):
    """The devkit's evaluation, entered after its loading from files."""

    def __init__(
        self, nusc: NuScenes, truth: EvalBoxes, predicted: EvalBoxes, config: DetectionConfig
    ) -> None:
        self.nusc = nusc
        self.cfg = config
        self.verbose = False
        self.gt_boxes = filtered(nusc, truth, config)
        self.pred_boxes = filtered(nusc, predicted, config)
        self.sample_tokens = self.gt_boxes.sample_tokens
