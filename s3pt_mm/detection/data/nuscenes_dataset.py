"""mmdet3d's nuScenes dataset, reading info files safely and refusing what would score wrongly."""

import copy
from typing import Any

import numpy as np
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.registry import DATASETS
from mmengine.logging import print_log

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.detection.data.loading import LoadSurroundImages
from s3pt_mm.detection.data.transforms import MultiViewGlobalRotScale, MultiViewResizeCropFlip

MIN_CARS_FOR_CONVENTION = 10
"""Cars needed before their shape says anything about the file's box convention."""


@DATASETS.register_module()
class SurroundNuScenesDataset(NuScenesDataset):
    """Key frames with all cameras, for camera-only detection.

    Differences from the parent:

    * The info file is read without executing anything from it, and ``version`` comes from the
      file, so that tables of another version are never evaluated by mistake.
    * An info file written before mmdet3d 1.0 (width and length exchanged, another yaw) is an
      error: with it mAP looks right while orientation and NDS are wrong.
    * Boxes without a positive finite size, or with a centre or yaw that is not finite, are dropped
      with one warning (``bad_boxes='drop'``) or are an error (``'error'``). PETR regresses the
      logarithm of sizes, so a single one turns the loss into infinity.
    * A frame without any object is trained on (``filter_empty_gt=False`` by default; choice of
      this package): it teaches background, and drawing another frame in its place would make the
      order of data depend on chance.
    * ``metainfo['cameras']`` names the cameras in the order of the pipeline; it goes into
      checkpoints.

    Args:
        *args: As mmdet3d's ``NuScenesDataset``.
        bad_boxes: ``'drop'`` or ``'error'``.
        filter_empty_gt: Whether training skips frames without objects.
        keep_in_memory: Prepare each sample once and keep it (in every worker process), for a few
            samples without augmentation: six images are read and halved in a tenth of a second, a
            small model's step is not much longer.
        **kwargs: As mmdet3d's ``NuScenesDataset``.

    Raises:
        DataError: The file is no info file, is of the old convention, or has a bad box and
            ``bad_boxes='error'``.
        ValueError: ``keep_in_memory`` with a pipeline that draws random numbers.
    """

    def __init__(
        self,
        *args: Any,
        bad_boxes: str = 'drop',
        filter_empty_gt: bool = False,
        keep_in_memory: bool = False,
        **kwargs: Any,
    ) -> None:
        if bad_boxes not in ('drop', 'error'):
            raise ValueError(f"bad_boxes is 'drop' or 'error', got {bad_boxes!r}")
        self.bad_boxes = bad_boxes
        self._kept: dict[int, dict] | None = {} if keep_in_memory else None
        super().__init__(*args, filter_empty_gt=filter_empty_gt, **kwargs)
        for transform in self.pipeline.transforms:
            if isinstance(transform, LoadSurroundImages):
                self._metainfo['cameras'] = list(transform.cameras)
            if keep_in_memory and _is_random(transform):
                raise ValueError(
                    f'keep_in_memory would repeat the first draw of {type(transform).__name__}; '
                    'take augmentation out of the pipeline or keep_in_memory out of the dataset'
                )

    def __getitem__(self, index: int) -> dict:
        """The prepared sample; a copy of the kept one with ``keep_in_memory``."""
        if self._kept is None:
            return super().__getitem__(index)
        if int(index) not in self._kept:
            self._kept[int(index)] = super().__getitem__(index)
        # The model's preprocessor writes into samples.
        return copy.deepcopy(self._kept[int(index)])

    def load_data_list(self) -> list[dict]:
        """Reads, checks and parses the info file."""
        unused = (
            ['image_sweeps'] if self.modality['use_lidar'] else ['image_sweeps', 'lidar_sweeps']
        )
        content = load_info_file(self.ann_file, without=unused)
        metainfo, infos = content['metainfo'], content['data_list']
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        if 'version' in metainfo:
            self._metainfo['version'] = metainfo['version']
        self._require_annotations(infos)
        self._refuse_old_convention(infos)
        self._remove_bad_boxes(infos)
        return [self.parse_data_info(info) for info in infos]

    def _require_annotations(self, infos: list[dict]) -> None:
        """Training needs boxes with velocities; a test set may have none."""
        for info in infos:
            if 'instances' not in info:
                if not self.test_mode:
                    raise DataError(
                        self.ann_file,
                        f'sample {info.get("token")} has no `instances`: there is nothing to train',
                        'Use the info file of a labelled split, s3pt-data nuscenes',
                    )
                info['instances'] = []
            lacking = [i for i in info['instances'] if self.with_velocity and 'velocity' not in i]
            if lacking:
                raise DataError(
                    self.ann_file,
                    f'sample {info.get("token")}: {len(lacking)} of {len(info["instances"])} '
                    'instances have no `velocity`, which nuScenes measures',
                    'Create it again with s3pt-data nuscenes',
                )

    def _refuse_old_convention(self, infos: list[dict]) -> None:
        car = self.METAINFO['classes'].index('car')
        sizes = np.array(
            [
                instance['bbox_3d'][3:6]
                for info in infos
                for instance in info.get('instances', ())
                if instance['bbox_label_3d'] == car
            ],
            np.float64,
        )
        if len(sizes) < MIN_CARS_FOR_CONVENTION:
            return
        length, width, _ = np.nanmedian(sizes, axis=0)
        if length < width:
            raise DataError(
                self.ann_file,
                f'its cars are {length:.2f} m long and {width:.2f} m wide in the median, so it was '
                'written in the box convention before mmdet3d 1.0 (width, length, height)',
                'Create it again with s3pt-data nuscenes',
            )

    def _remove_bad_boxes(self, infos: list[dict]) -> None:
        dropped, first = 0, ''
        for info in infos:
            kept = []
            for instance in info.get('instances', ()):
                box = np.asarray(instance['bbox_3d'], np.float64)
                if np.isfinite(box).all() and (box[3:6] > 0).all():
                    kept.append(instance)
                    continue
                dropped += 1
                first = first or f'sample {info.get("token")}: bbox_3d {box.tolist()}'
            if 'instances' in info:
                info['instances'] = kept
        if not dropped:
            return
        if self.bad_boxes == 'error':
            raise DataError(
                self.ann_file,
                f'{dropped} boxes have no positive finite size or place; first: {first}',
                "Correct sample_annotation.json, or set bad_boxes='drop' in the dataset's config",
            )
        print_log(
            f'{self.ann_file}: dropped {dropped} boxes without a positive finite size or place; '
            f'first: {first}',
            'current',
            level=30,
        )


def _is_random(transform: object) -> bool:
    training = isinstance(transform, MultiViewResizeCropFlip) and transform.training
    return training or isinstance(transform, MultiViewGlobalRotScale)
