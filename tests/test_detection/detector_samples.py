"""Outputs of a detector, made from ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from s3pt_mm.detection.data.nuscenes_dataset import SurroundNuScenesDataset
from s3pt_mm.detection.petr.box_coder import decode_boxes, encode_boxes


def truth_samples(root: Path) -> list[dict[str, Any]]:
    """Ground truth of every sample in the form of a detector's output, through PETR's box code."""
    dataset = SurroundNuScenesDataset(
        data_root=str(root),
        ann_file='nuscenes_infos_val.parquet',
        modality={'use_camera': True, 'use_lidar': False},
        test_mode=True,
        use_valid_flag=True,
    )
    samples = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        truth = info['eval_ann_info']
        known = torch.as_tensor(truth['gt_labels_3d']) >= 0
        boxes = truth['gt_bboxes_3d'][known]
        gravity = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=1)
        tensor = decode_boxes(encode_boxes(gravity))
        labels = torch.as_tensor(truth['gt_labels_3d'])[known]
        scores = torch.ones(len(labels))
        samples.append(detector_sample(info['token'], index, tensor, labels, scores))
    return samples


def detector_sample(
    token: str, index: int, tensor: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor
) -> dict[str, Any]:
    boxes = LiDARInstance3DBoxes(tensor, box_dim=9, origin=(0.5, 0.5, 0.5))
    predicted = {'bboxes_3d': boxes, 'scores_3d': scores, 'labels_3d': labels}
    return {
        'token': token, 'sample_idx': index, 'pred_instances_3d': predicted, 'pred_instances': {},
    }  # fmt: skip
