"""Average precision by distance from the ego: the supplement's Table 6."""

from collections.abc import Mapping, Sequence

from mmdet3d.registry import METRICS
from nuscenes import NuScenes
from nuscenes.eval.detection.constants import DETECTION_NAMES

from s3pt_mm.detection.metrics.devkit import (
    detection_config,
    evaluate,
    ground_truth,
    predictions,
    split_tokens,
)
from s3pt_mm.detection.metrics.devkit_metric import VALIDATION_SPLITS, DevkitMetric

TABLE6_RANGES = (20.0, 30.0, 60.0)
TABLE6_EXCLUDED = ('construction_vehicle',)
OFFICIAL = 'official'
"""The devkit's own ranges: 50, 40 or 30 m by class."""


@METRICS.register_module()
class NuScenesRangeMetric(DevkitMetric):
    """Per-class AP and mAP with objects within each of several ranges.

    Every class has the same range r, for truth and prediction alike: horizontal distance from the
    ego, below r, not capped by the devkit's own 50/40/30 m (choice of this package: the supplement
    does not say). Everything else is nuscenes-devkit's evaluation. Figures are named
    ``range/20m/car_AP`` and ``range/20m/mAP``.

    Args:
        ranges: Metres, or ``'official'`` for the devkit's ranges.
        exclude: Classes left out of the table and the mean.
        split: Official split that must be complete; by default the validation split of the
            version. ``'seen'`` evaluates over whatever samples were predicted.
        **kwargs: See :class:`DevkitMetric`.
    """

    default_prefix = 'range'

    def __init__(
        self,
        *,
        ranges: Sequence[float | str] = TABLE6_RANGES,
        exclude: Sequence[str] = TABLE6_EXCLUDED,
        split: str | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        range_names(ranges)
        self.ranges = tuple(ranges)
        self.exclude = tuple(exclude)
        self.split = split

    def figures(self, nusc: NuScenes, results: Mapping[str, Sequence[Mapping]]) -> dict[str, float]:
        """Flat figures for the log; see the class."""
        split = self.split or VALIDATION_SPLITS[nusc.version]
        tokens = list(results) if split == 'seen' else split_tokens(nusc, split)
        table = range_figures(
            nusc, results, tokens=tokens, ranges=self.ranges, exclude=self.exclude
        )
        return {
            f'{name}/{label}{"" if label == "mAP" else "_AP"}': value
            for name, column in table.items()
            for label, value in column.items()
        }


def range_figures(
    nusc: NuScenes,
    results: Mapping[str, Sequence[Mapping]],
    *,
    tokens: Sequence[str],
    ranges: Sequence[float | str] = TABLE6_RANGES,
    exclude: Sequence[str] = TABLE6_EXCLUDED,
) -> dict[str, dict[str, float]]:
    """AP of each class and their mean, for each range.

    Args:
        nusc: The tables.
        results: ``results`` of a submission that was not cut to the official ranges.
        tokens: Samples to evaluate; ``results`` must have exactly these.
        ranges: Metres or ``'official'``.
        exclude: Classes left out.

    Returns:
        Range name (``20m``, ``official``) -> class name or ``mAP`` -> AP in [0, 1]. A class
        without true box in range has AP 0, as in the devkit.

    Raises:
        ValueError: A range is not positive, a class is unknown, or samples are missing.
    """
    strangers = sorted(set(exclude) - set(DETECTION_NAMES))
    if strangers:
        raise ValueError(f'cannot exclude unknown classes {strangers}; classes: {DETECTION_NAMES}')
    classes = [name for name in DETECTION_NAMES if name not in exclude]
    truth, predicted = ground_truth(nusc, tokens), predictions(nusc, results)
    table = {}
    for name, max_range in range_names(ranges).items():
        config = detection_config(max_range=max_range, classes=classes)
        metrics = evaluate(nusc, truth, predicted, config)
        aps = {label: float(value) for label, value in metrics.mean_dist_aps.items()}
        table[name] = {**aps, 'mAP': metrics.mean_ap}
    return table


def range_names(ranges: Sequence[float | str]) -> dict[str, float | None]:
    """Name of each range -> metres, None for the official ones.

    Raises:
        ValueError: A range is neither ``'official'`` nor a positive number.
    """
    named: dict[str, float | None] = {}
    for value in ranges:
        if value == OFFICIAL:
            named[OFFICIAL] = None
        elif isinstance(value, int | float) and value > 0:
            named[f'{value:g}m'] = float(value)
        else:
            raise ValueError(f"a range is a positive number of metres or 'official', got {value!r}")
    return named


def looks_cut(nusc: NuScenes, results: Mapping[str, Sequence[Mapping]]) -> bool:
    """Whether a submission seems cut to the official ranges, as mmdet3d's ``NuScenesMetric`` does.

    True when boxes exist and none lies beyond the official range of its class; AP at longer ranges
    would then count every farther object as missed.
    """
    limits = detection_config().class_range
    boxes = predictions(nusc, results).all
    return bool(boxes) and all(box.ego_dist <= limits[box.detection_name] for box in boxes)
