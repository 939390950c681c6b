"""mIoU with the figures of every class, and over the classes that two data sets share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from s3pt_mm.common.files import write_json
from s3pt_mm.data.class_mappings import ClassMapping, load_mapping
from s3pt_mm.data.class_sets import IGNORE


@METRICS.register_module()
class SegmentationMetric(IoUMetric):
    """mmseg's ``IoUMetric`` that also returns each class and writes a JSON file.

    Areas, ignored pixels and the mean over classes are mmseg's own code; the figures are not
    rounded. With a ``mapping``, predictions and labels become the classes shared by two data sets
    first: unshared labels are ignored, an unshared prediction on a shared pixel is an error.

    Args:
        result_file: JSON file of the figures; None writes none.
        mapping: Name in :data:`s3pt_mm.data.class_mappings.MAPPINGS`; None compares the data
            set's own classes.
        mapping_role: ``target`` when the labels are the mapping's target data set (the model was
            trained on its source), ``source`` when they are its source.
        kwargs: Of mmseg's ``IoUMetric``.
    """

    def __init__(
        self,
        *,
        result_file: str | None = None,
        mapping: str | None = None,
        mapping_role: str = 'target',
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mapping_role not in ('source', 'target'):
            raise ValueError(f"mapping_role is {mapping_role!r}; choose 'source' or 'target'.")
        self.result_file = result_file
        self.mapping: ClassMapping | None = load_mapping(mapping) if mapping else None
        self.mapping_role = mapping_role

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes that are scored."""
        return self.mapping.classes if self.mapping else self.dataset_meta['classes']

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the areas of a batch; see mmseg."""
        if self.mapping is None:
            super().process(data_batch, data_samples)
            return
        predictions = self.mapping.lookup_table('source', missing=len(self.mapping.classes))
        labels = self.mapping.lookup_table(self.mapping_role, missing=IGNORE)
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data'].squeeze().cpu().numpy()
            label = sample['gt_sem_seg']['data'].squeeze().cpu().numpy()
            self.results.append(
                self.intersect_and_union(
                    torch.from_numpy(predictions[prediction].astype(np.int64)),
                    torch.from_numpy(labels[label].astype(np.int64)),
                    len(self.mapping.classes),
                    self.ignore_index,
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """mIoU, mAcc, aAcc and ``IoU/<class>``, ``Acc/<class>``, in percent.

        Args:
            results: Areas of every image, from :meth:`process`.
        """
        logger = MMLogger.get_current_instance()
        if self.format_only:
            logger.info(f'Predictions are in {self.output_dir}')
            return {}
        areas = [sum(parts) for parts in zip(*results, strict=True)]
        figures = self.total_area_to_metrics(*areas, ['mIoU'])
        iou, acc = 100.0 * figures['IoU'].astype(float), 100.0 * figures['Acc'].astype(float)
        metrics = dict(
            mIoU=float(np.nanmean(iou)),
            mAcc=float(np.nanmean(acc)),
            aAcc=100.0 * float(figures['aAcc']),
        )
        names = list(self.class_names)
        metrics |= {f'IoU/{name}': float(value) for name, value in zip(names, iou, strict=True)}
        metrics |= {f'Acc/{name}': float(value) for name, value in zip(names, acc, strict=True)}
        lines = [
            f'{name:>24} {i:7.2f} {a:7.2f}' for name, i, a in zip(names, iou, acc, strict=True)
        ]
        print_log('\n'.join([f'{"class":>24}     IoU     Acc', *lines]), logger=logger)
        if self.result_file and is_main_process():
            content = dict(metrics, classes=names, images=len(results))
            write_json(self.result_file, content)
        return metrics
