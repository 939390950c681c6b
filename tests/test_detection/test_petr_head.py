from __future__ import annotations

import copy

import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from tools.dev.benchmark_detection import make_samples

from .petr_cases import tiny_head

IMAGE, SIZE, VIEWS = (32, 48), (2, 3), 3


def samples(count: int = 2, objects: int = 4) -> list[Det3DDataSample]:
    return make_samples(count, views=VIEWS, image_size=IMAGE, objects=objects)


def feature(count: int = 2) -> Tensor:
    return torch.randn(count, VIEWS, 16, *SIZE)


def gradients(head: nn.Module, x: Tensor, batch: list[Det3DDataSample]) -> dict[str, Tensor]:
    head.zero_grad()
    sum(head.loss(x, batch).values()).backward()
    return {name: p.grad.clone() for name, p in head.named_parameters()}


def test_every_layer_has_losses_and_every_weight_a_gradient() -> None:
    head = tiny_head().train()
    losses = head.loss(feature(), samples())
    assert list(losses) == ['d0.loss_cls', 'd0.loss_bbox', 'loss_cls', 'loss_bbox']
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


def test_batch_equals_its_samples() -> None:
    head, x, batch = tiny_head().eval(), feature(), samples()
    batch[1].set_metainfo({'lidar2img': [m * 1.01 for m in batch[1].lidar2img]})
    together = head(x, [one.metainfo for one in batch])['all_bbox_preds']
    for i in range(2):
        alone = head(x[i : i + 1], [batch[i].metainfo])['all_bbox_preds']
        torch.testing.assert_close(together[:, i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_padding_does_not_matter() -> None:
    head, batch = tiny_head().eval(), samples(1)
    batch[0].set_metainfo({'img_shape': (32, 32)})  # the last column is padding
    x = feature(1)
    other = x.clone()
    other[..., 2] += 5
    first, second = (head(f, [batch[0].metainfo])['all_cls_scores'] for f in (x, other))
    torch.testing.assert_close(first, second)
    batch[0].set_metainfo({'img_shape': IMAGE})
    assert not torch.allclose(head(other, [batch[0].metainfo])['all_cls_scores'], second)


def test_recomputing_changes_nothing() -> None:
    head, x, batch = tiny_head().train(), feature(), samples()
    lean = copy.deepcopy(head)
    lean.transformer['decoder'].recompute = True
    plain, recomputed = gradients(head, x, batch), gradients(lean, x, batch)
    for name, grad in plain.items():
        torch.testing.assert_close(recomputed[name], grad, msg=name)


def test_loss_needs_no_compiled_operator_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tensors say that they are on a GPU, mmdet's focal loss prefers mmcv's operator, which
    mmcv-lite lacks and a CPU's mmcv refuses."""
    head, x, batch = tiny_head(), feature(), samples()
    expected = head.loss(x, batch)
    monkeypatch.setattr(Tensor, 'is_cuda', True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    torch.testing.assert_close(head.loss(x, batch), expected, rtol=0, atol=0)


def test_empty_ground_truth() -> None:
    head, x = tiny_head().train(), feature()
    losses = head.loss(x, samples(objects=0))
    assert float(losses['loss_bbox']) == 0
    assert float(losses['loss_cls']) > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    mixed = [samples(1)[0], samples(1, objects=0)[0]]
    assert all(torch.isfinite(v) for v in head.loss(x, mixed).values())


def test_unknown_velocity_is_left_out() -> None:
    head, x, batch = tiny_head().eval(), feature(1), samples(1)
    without = copy.deepcopy(head)
    without.code_weights[8:] = 0
    expected = without.loss(x, batch)
    assert float(expected['loss_bbox']) < float(head.loss(x, batch)['loss_bbox'])
    batch[0].gt_instances_3d.bboxes_3d.tensor[:, 7:] = torch.nan
    torch.testing.assert_close(head.loss(x, batch), expected)


@pytest.mark.parametrize('counts', [(5, 2), (5, 0)])
def test_losses_are_divided_by_the_objects_of_all_samples(counts: tuple[int, int]) -> None:
    """And one without objects by 1."""
    head, x = tiny_head().eval(), feature()
    batch = [samples(1, objects=count)[0] for count in counts]
    together = head.loss(x, batch)
    alone = [head.loss(x[i : i + 1], batch[i : i + 1]) for i in range(2)]
    for name, value in together.items():
        sums = [max(count, 1) * losses[name] for count, losses in zip(counts, alone, strict=True)]
        torch.testing.assert_close(value, sum(sums) / sum(counts))


@pytest.mark.parametrize(('column', 'value'), [(3, 0.0), (4, -1.0), (0, torch.nan), (6, torch.inf)])
def test_bad_boxes_are_refused(column: int, value: float) -> None:
    batch = samples(2)
    batch[1].gt_instances_3d.bboxes_3d.tensor[2, column] = value
    with pytest.raises(ValueError, match='sample 1 of the batch: 1 true boxes'):
        tiny_head().loss(feature(), batch)


@pytest.mark.parametrize('label', [-1, 10])
def test_bad_labels_are_refused(label: int) -> None:
    batch = samples(1)
    batch[0].gt_instances_3d.labels_3d[0] = label
    with pytest.raises(ValueError, match=f'label {label} is none of the 10'):
        tiny_head().loss(feature(1), batch)


def test_missing_camera_and_bad_calibration_are_refused() -> None:
    head, batch = tiny_head(), samples(1)
    with pytest.raises(ValueError, match='a camera is missing'):
        head.loss(feature(1)[:, :2], batch)
    batch[0].lidar2img[1][0, 0] = torch.nan
    with pytest.raises(ValueError, match='view 1: lidar2img is not finite'):
        head.loss(feature(1), batch)


def test_predictions_lie_on_their_bottom() -> None:
    head, x, batch = tiny_head().eval(), feature(1), samples(1)
    result = head.predict(x, batch)[0]
    output = head(x, [batch[0].metainfo])
    boxes, scores, _ = head.bbox_coder.decode(
        output['all_cls_scores'][-1, 0], output['all_bbox_preds'][-1, 0]
    )
    assert result.bboxes_3d.box_dim == 9
    torch.testing.assert_close(result.bboxes_3d.gravity_center, boxes[:, :3])
    torch.testing.assert_close(result.bboxes_3d.tensor[:, 2], boxes[:, 2] - boxes[:, 5] / 2)
    torch.testing.assert_close(result.scores_3d, scores)


def test_decoder_starts_without_bias() -> None:
    """As mmdetection3d's PETR: Xavier matrices, zeros in every layer, feed-forward included."""
    decoder = tiny_head().transformer
    decoder.init_weights()
    checked = 0
    for name, parameter in decoder.named_parameters():
        if 'bias' in name and 'norm' not in name:
            assert not parameter.any(), name
            checked += 'ffn' in name
    assert checked


def test_learns_one_frame() -> None:
    head, x, batch = tiny_head().train(), feature(1), samples(1)
    head.init_weights()
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    history = []
    for _ in range(30):
        loss = sum(head.loss(x, batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.7 * history[0]
