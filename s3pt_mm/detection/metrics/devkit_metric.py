"""What the package's nuScenes metrics share: collecting predictions and meeting the tables."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from nuscenes import NuScenes

from s3pt_mm.data.datasets.nuscenes_infos import load_tables
from s3pt_mm.detection.metrics.submission import (
    CAMERA_META,
    lidar_to_global,
    submission_boxes,
    write_submission,
)

VALIDATION_SPLITS = {'v1.0-mini': 'mini_val', 'v1.0-trainval': 'val'}


class DevkitMetric(BaseMetric):
    """Collects predictions by sample token, writes them as a submission, and evaluates.

    Samples are known by their tokens, not by their place in the info file as in mmdet3d's
    ``NuScenesMetric``, so that a data set cut by ``indices`` is evaluated right too. A sample that
    a distributed sampler repeats counts once.

    Args:
        data_root: Folder that holds the tables.
        version: ``v1.0-mini``, ``v1.0-trainval`` ...; by default the data set's own.
        submission: Where to write all predicted boxes as a submission file; not cut to any range,
            which nuScenes' server does by itself.
        meta: Sensors declared in that file.
        collect_device: As mmengine's ``BaseMetric``.
        prefix: As mmengine's ``BaseMetric``.
    """

    def __init__(
        self,
        *,
        data_root: str,
        version: str | None = None,
        submission: str | None = None,
        meta: Mapping[str, bool] = CAMERA_META,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.data_root = data_root
        self.version = version
        self.submission = submission
        self.meta = dict(meta)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps boxes, scores and labels on the CPU.

        Raises:
            KeyError: The pipeline does not hand over the sample's token.
        """
        for sample in data_samples:
            if 'token' not in sample:
                raise KeyError(
                    f"{type(self).__name__} needs the sample's token: add 'token' to meta_keys of "
                    'Pack3DDetInputs in the test pipeline'
                )
            predicted = sample['pred_instances_3d']
            self.results.append(
                {
                    'token': sample['token'],
                    'bboxes_3d': predicted['bboxes_3d'].to('cpu'),
                    'scores_3d': predicted['scores_3d'].cpu(),
                    'labels_3d': predicted['labels_3d'].cpu(),
                }
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Turns all predictions into a submission and evaluates it."""
        version = self.version or self.dataset_meta['version']
        nusc = load_tables(self.data_root, version)
        boxes = {
            result['token']: submission_boxes(
                result['bboxes_3d'],
                result['scores_3d'],
                result['labels_3d'],
                token=result['token'],
                lidar2global=lidar_to_global(nusc, result['token']),
                classes=self.dataset_meta['classes'],
            )
            for result in results
        }
        if self.submission is not None:
            path = write_submission(boxes, self.submission, meta=self.meta)
            print_log(f'{len(boxes)} samples written to {path}', 'current')
        return self.figures(nusc, boxes)

    @abstractmethod
    def figures(self, nusc: NuScenes, results: Mapping[str, Sequence[Mapping]]) -> dict[str, float]:
        """Figures of a submission's ``results``."""
