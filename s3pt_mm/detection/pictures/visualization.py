"""Visualiser and hook for surround detections: one panel a sample, no open3d, no display."""

import os.path as osp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet3d.engine.hooks import Det3DVisualizationHook
from mmdet3d.registry import HOOKS, VISUALIZERS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.fileio import get
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from s3pt_mm.common.files import inside
from s3pt_mm.detection.pictures.panel import PREDICTION_COLOUR, TRUTH_COLOUR, DrawnBoxes, draw_panel

NUSCENES_LIDAR_TO_EGO = np.array(
    [[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
"""nuScenes' LiDAR looks along its y axis; used where a sample does not carry ``lidar2ego``."""


@VISUALIZERS.register_module()
class SurroundVisualizer(Visualizer):
    """Draws true and predicted boxes of one sample over its images and in bird's-eye view.

    mmdet3d's visualiser opens an open3d window for multi-view detection; this one draws on arrays.

    Args:
        tile_width: Width of one image in the panel, pixels.
        bev_range: Half the side of the bird's-eye view, metres.
        **kwargs: As mmengine's ``Visualizer``.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        *,
        tile_width: int = 640,
        bev_range: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        self.tile_width = tile_width
        self.bev_range = bev_range

    def add_datasample(
        self,
        name: str,
        data_input: Mapping[str, Sequence[np.ndarray]],
        data_sample: Det3DDataSample,
        *,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> np.ndarray:
        """Draws one sample and hands it to a file, a window or the backends.

        Args:
            name: Title, and the name under which backends keep the picture.
            data_input: ``img``: V RGB images as they lie on disk.
            data_sample: Prediction with ``ori_lidar2img`` in its meta data; true boxes come from
                ``gt_instances_3d`` or else from ``eval_ann_info``.
            draw_gt: Whether to draw true boxes.
            draw_pred: Whether to draw predicted boxes.
            show: Whether to open a window.
            wait_time: Seconds the window stays; 0 waits for a key.
            out_file: Where to write the picture, instead of handing it to the backends.
            pred_score_thr: Predictions below are not drawn.
            step: Step number for the backends.

        Returns:
            The panel, RGB.

        Raises:
            KeyError: The sample has no ``ori_lidar2img``.
        """
        if 'ori_lidar2img' not in data_sample:
            raise KeyError(
                "SurroundVisualizer needs 'ori_lidar2img': load images with LoadSurroundImages and "
                'list it in meta_keys of Pack3DDetInputs'
            )
        images = data_input['img']
        layers = []
        if draw_gt:
            layers.append(self._truth(data_sample))
        if draw_pred and 'pred_instances_3d' in data_sample:
            layers.append(self._predicted(data_sample, pred_score_thr))
        panel = draw_panel(
            images,
            np.asarray(data_sample.ori_lidar2img),
            layers,
            cameras=data_sample.get('camera_names', [str(i) for i in range(len(images))]),
            lidar2ego=np.asarray(data_sample.get('lidar2ego', NUSCENES_LIDAR_TO_EGO)),
            title=f'{name}   score over {pred_score_thr:g}',
            tile_width=self.tile_width,
            bev_range=self.bev_range,
        )
        if show:
            self.show(panel, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(panel[..., ::-1], out_file)
        elif not show:
            self.add_image(name, panel, step)
        return panel

    def _truth(self, data_sample: Det3DDataSample) -> DrawnBoxes:
        instances = data_sample.get('gt_instances_3d')
        if instances is not None and 'bboxes_3d' in instances:
            boxes, labels = instances.bboxes_3d, instances.labels_3d
        else:
            annotations = data_sample.get('eval_ann_info') or {}
            boxes = annotations.get('gt_bboxes_3d', LiDARInstance3DBoxes(torch.zeros(0, 7)))
            labels = annotations.get('gt_labels_3d', np.zeros(0, np.int64))
        labels = torch.as_tensor(labels)
        known = labels >= 0
        return self._drawn(boxes[known], labels[known], None, TRUTH_COLOUR)

    def _predicted(self, data_sample: Det3DDataSample, threshold: float) -> DrawnBoxes:
        instances = data_sample.pred_instances_3d.to('cpu')
        instances = instances[instances.scores_3d > threshold]
        return self._drawn(
            instances.bboxes_3d, instances.labels_3d, instances.scores_3d, PREDICTION_COLOUR
        )

    def _drawn(
        self,
        boxes: LiDARInstance3DBoxes,
        labels: torch.Tensor,
        scores: torch.Tensor | None,
        colour: tuple[int, int, int],
    ) -> DrawnBoxes:
        classes = (self.dataset_meta or {}).get('classes')
        names = [classes[label] if classes else str(label) for label in labels.tolist()]
        if scores is not None:
            scored = zip(names, scores.tolist(), strict=True)
            names = [f'{name} {score:.2f}' for name, score in scored]
        else:
            names = [''] * len(names)
        return DrawnBoxes(boxes.corners.detach().cpu().double().numpy(), names, colour)


@HOOKS.register_module()
class SurroundVisualizationHook(Det3DVisualizationHook):
    """Draws panels during validation (every ``interval`` batches) and of every tested sample.

    The arguments are those of mmdet3d's hook, so that ``s3pt-test --show-dir`` sets the same
    keys (``draw``, ``test_out_dir``); true boxes are drawn by default. In testing the pictures
    lie in ``work_dir/timestamp/test_out_dir`` (or ``test_out_dir`` itself if absolute), one PNG a
    sample, named by its index and token.
    """

    def __init__(self, *, draw_gt: bool = True, vis_task: str = 'multi-view_det', **kwargs) -> None:
        super().__init__(draw_gt=draw_gt, vis_task=vis_task, **kwargs)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[Det3DDataSample]
    ) -> None:
        """Draws the first sample of every ``interval``-th validation batch."""
        if self.draw and batch_idx % self.interval == 0:
            self._add(outputs[0], f'val_{_name(outputs[0])}', step=runner.iter)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[Det3DDataSample]
    ) -> None:
        """Draws every sample."""
        if not self.draw:
            return
        for sample in outputs:
            name = _name(sample)
            out_file = None
            if self.test_out_dir is not None:
                folder = osp.join(runner.work_dir, runner.timestamp, self.test_out_dir)
                out_file = str(inside(Path(folder), f'{name}.png', 'the info file'))
            self._add(sample, name, out_file=out_file)

    def _add(
        self, sample: Det3DDataSample, name: str, *, step: int = 0, out_file: str | None = None
    ) -> None:
        images = [
            mmcv.imfrombytes(get(path, backend_args=self.backend_args), channel_order='rgb')
            for path in sample.img_path
        ]
        self._visualizer.add_datasample(
            name,
            {'img': images},
            sample,
            draw_gt=self.draw_gt,
            draw_pred=self.draw_pred,
            show=self.show,
            wait_time=self.wait_time,
            out_file=out_file,
            pred_score_thr=self.score_thr,
            step=step,
        )


def _name(sample: Det3DDataSample) -> str:
    return f'{int(sample.get("sample_idx", 0)):06d}_{sample.get("token", "sample")}'
