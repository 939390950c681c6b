"""nuScenes' figures over the samples that were evaluated and the classes present in them."""

from collections.abc import Mapping, Sequence

from mmdet3d.registry import METRICS
from mmengine.logging import print_log
from nuscenes import NuScenes

from s3pt_mm.detection.metrics.devkit import (
    classes_present,
    detection_config,
    evaluate,
    ground_truth,
    predictions,
    summary,
)
from s3pt_mm.detection.metrics.devkit_metric import DevkitMetric


@METRICS.register_module()
class NuScenesSubsetMetric(DevkitMetric):
    """mAP, NDS and the five errors for a part of the data.

    The official evaluation wants a whole split and gives AP 0 to a class that does not occur; on a
    handful of frames that says little. Here the samples are those that were predicted, and means
    run over the classes that have a true box in range with LiDAR or radar points on it. Over a
    whole split in which every class occurs the figures are the official ones.

    Args:
        max_range: One range for every class, metres; the official ranges by default.
        **kwargs: See :class:`DevkitMetric`.

    Raises:
        ValueError: No sample has a true box to find.
    """

    default_prefix = 'subset'

    def __init__(self, *, max_range: float | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.max_range = max_range

    def figures(self, nusc: NuScenes, results: Mapping[str, Sequence[Mapping]]) -> dict[str, float]:
        """See the class."""
        truth = ground_truth(nusc, results)
        config = detection_config(max_range=self.max_range)
        present = classes_present(nusc, truth, config)
        if not present:
            raise ValueError(
                f'none of the {len(results)} evaluated samples has a true box in range with points '
                'on it: there is nothing to measure; choose samples with objects'
            )
        print_log(f'{len(results)} samples, classes present: {present}', 'current')
        config = detection_config(max_range=self.max_range, classes=present)
        return summary(evaluate(nusc, truth, predictions(nusc, results), config))
