"""The published model: names and shapes, and mmdetection3d's numbers within 1e-3."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import nn

from .petr_cases import GOLDEN, fill_by_name, petr_config, scoped

FOLDER = Path(os.environ.get('S3PT_GOLDEN_DIR', GOLDEN))


def load(name: str) -> dict[str, np.ndarray]:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f'{path} is not there')
    return dict(np.load(path))


@pytest.fixture(scope='module')
def model() -> nn.Module:
    model = MODELS.build(scoped(petr_config('vovnet99').model))
    fill_by_name(model)
    return model.eval()


@pytest.fixture(scope='module')
def golden() -> dict[str, np.ndarray]:
    return load('petr_head.npz')


@pytest.fixture(scope='module')
def sample(golden: dict[str, np.ndarray]) -> Det3DDataSample:
    size = tuple(int(x) for x in golden['pad_shape'])
    sample = Det3DDataSample(
        metainfo={'lidar2img': golden['lidar2img'], 'pad_shape': size, 'img_shape': size}
    )
    boxes = torch.from_numpy(golden['gt_boxes_gravity_centre_9'])
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)),
        labels_3d=torch.from_numpy(golden['gt_labels']),
    )
    return sample


@pytest.fixture(scope='module')
def outputs(model: nn.Module, golden: dict, sample: Det3DDataSample) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return model.pts_bbox_head(torch.from_numpy(golden['feats']), [sample.metainfo])


def test_state_dict_is_the_published_one(model: nn.Module) -> None:
    published = json.loads((GOLDEN / 'petr_vovnet_state_dict_shapes.json').read_text())
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == published
    zeros = {name: torch.zeros(shape) for name, shape in published.items()}
    meta = MODELS.build(scoped(petr_config('vovnet99').model))
    meta.load_state_dict(zeros, strict=True)
    assert not any(bool(p.any()) for p in meta.parameters())


def test_position_embedding(model: nn.Module, golden: dict, sample: Det3DDataSample) -> None:
    size = golden['feats'].shape[-2:]
    with torch.no_grad():
        embedding = model.pts_bbox_head.frustum_embedding([sample.metainfo], 6, size)
    maps = embedding.view(6, *size, -1).permute(0, 3, 1, 2).numpy()
    np.testing.assert_allclose(maps[0, :8], golden['position_embedding_cam0'], atol=1e-3)
    mean = golden['position_embedding_mean_per_channel']
    np.testing.assert_allclose(maps.mean((0, 2, 3)), mean, atol=1e-3)


@pytest.mark.parametrize('name', ['all_cls_scores', 'all_bbox_preds'])
def test_outputs(outputs: dict, golden: dict, name: str) -> None:
    np.testing.assert_allclose(outputs[name][-1].numpy(), golden[f'{name}_last'], atol=1e-3)


def test_a_change_of_one_percent_is_seen(outputs: dict, golden: dict) -> None:
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(
            outputs['all_bbox_preds'][-1].numpy() * 1.01, golden['all_bbox_preds_last'], atol=1e-3
        )


def test_losses(model: nn.Module, outputs: dict, golden: dict, sample: Det3DDataSample) -> None:
    head = model.pts_bbox_head
    losses = head.criterion(
        **outputs, instances=[sample.gt_instances_3d], code_weights=head.code_weights
    )
    expected = {key[5:]: float(v) for key, v in golden.items() if key.startswith('loss_')}
    found = {key.replace('.', '_'): float(value) for key, value in losses.items()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-3, rel=1e-5), key


def test_decoding(model: nn.Module, outputs: dict, golden: dict) -> None:
    boxes, scores, labels = model.pts_bbox_head.bbox_coder.decode(
        outputs['all_cls_scores'][-1, 0], outputs['all_bbox_preds'][-1, 0]
    )
    np.testing.assert_allclose(scores.numpy(), golden['decoded_scores'], atol=1e-4)
    # Scores that tie within rounding may change places: each box is looked for.
    expected = torch.from_numpy(golden['decoded_boxes']).double()
    distance = torch.cdist(boxes.double(), expected)
    distance[labels[:, None] != torch.from_numpy(golden['decoded_labels'])] = torch.inf
    assert float(distance.min(1).values.max()) < 1e-3
    assert float(distance.min(0).values.max()) < 1e-3


def test_backbone_and_neck(model: nn.Module) -> None:
    golden = load('petr_vovnet_cpfpn.npz')
    with torch.no_grad():
        stages = model.img_backbone(torch.from_numpy(golden['image']))
        neck = model.img_neck(stages)
    for name, found in zip(('stage4', 'stage5'), stages, strict=True):
        np.testing.assert_allclose(found[:, ::16].numpy(), golden[name], atol=1e-3)
    for name, found in zip(('neck0', 'neck1'), neck, strict=True):
        np.testing.assert_allclose(found[:, ::4].numpy(), golden[name], atol=1e-3)
