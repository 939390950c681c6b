"""DINO, CrIBo and S3PT as models: one step, who gets gradients, what a checkpoint gives."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from s3pt_mm.method.algorithms import DINO, S3PT, CrIBo, TeacherStudent
from s3pt_mm.method.algorithms.token_fields import TokenFields

B, SIZE, PATCH = 3, 48, 16
N = (SIZE // PATCH) ** 2
HEAD = dict(num_prototypes=40, hidden_channels=16, bottleneck_channels=8)
PARTS = dict(clustering=dict(num_clusters=4), queue_images=5)


def make(cls: type[TeacherStudent], **overrides) -> TeacherStudent:  # noqa: ANN003
    backbone = dict(
        type=overrides.pop('backbone', 'VisionTransformer'),
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=SIZE,
        patch_size=PATCH,
        drop_path_rate=0.1,
        out_type='raw',
    )
    options = dict(head=dict(HEAD, with_objects=cls is not DINO))
    if cls is not DINO:
        options.update(copy.deepcopy(PARTS))
    options.update(overrides)
    return cls(backbone=backbone, **options)


def batch(crops: int = 2, depth: bool = True, images: int = B) -> dict:
    samples = []
    for index in range(images):
        sample = DataSample()
        sample.set_field(torch.rand(2, N, 2) * 900, 'token_xy')
        if depth:
            sample.set_field(torch.rand(2, N) * 60, 'token_depth')
            sample.set_field(torch.rand(2, N) < 0.6, 'token_has_depth')
        sample.set_field(torch.tensor(index), 'sample_seed')
        samples.append(sample)
    sizes = [SIZE, SIZE] + [32] * (crops - 2)
    views = [torch.randint(0, 255, (images, 3, size, size), dtype=torch.uint8) for size in sizes]
    return dict(inputs=views, data_samples=samples)


def total(losses: dict[str, Tensor]) -> Tensor:
    return sum(value for name, value in losses.items() if 'loss' in name)


def run_loss(model: TeacherStudent, data: dict) -> dict[str, Tensor]:
    return model(**model.data_preprocessor(data, True), mode='loss')


@pytest.mark.parametrize('cls', [DINO, CrIBo, S3PT])
def test_train_step_before_any_hook(cls: type) -> None:
    model = make(cls)
    optimizer = OptimWrapper(torch.optim.AdamW(model.student.parameters(), lr=1e-3))
    before = copy.deepcopy(model.student.state_dict())
    log = model.train_step(batch(crops=4 if cls is DINO else 2), optimizer)
    assert math.isfinite(log['loss']) and math.isfinite(log['teacher_entropy'])
    moved = [not torch.equal(before[k], v) for k, v in model.student.state_dict().items()]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize('cls', [DINO, CrIBo, S3PT])
def test_only_the_student_gets_gradients(cls: type) -> None:
    model = make(cls)
    model.epoch = 1
    for _ in range(2):  # the second step has neighbours
        total(run_loss(model, batch())).backward()
        model.update_teacher(1.0)
    assert all(p.grad is None for p in model.teacher.parameters())
    missing = [name for name, p in model.student.named_parameters() if p.grad is None]
    assert not missing


def test_teacher_stays_in_eval_mode_and_follows() -> None:
    model = make(S3PT)
    model.train()
    assert not any(module.training for module in model.teacher.modules())
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in model.teacher.parameters()]
    model.update_teacher(0.75)
    for old, (student, teacher) in zip(before, model.pairs(), strict=False):
        torch.testing.assert_close(teacher, 0.75 * old + 0.25 * student)


def test_init_weights_starts_the_teacher_as_a_copy() -> None:
    model = make(CrIBo)
    model.init_weights()
    for (name, a), b in zip(
        model.student.state_dict().items(), model.teacher.state_dict().values(), strict=False
    ):
        assert torch.equal(a, b), name


@pytest.mark.parametrize('cls', [CrIBo, S3PT])
def test_losses_stay_finite_where_there_is_little_to_learn_from(cls: type) -> None:
    model = make(cls, queue_images=2)  # smaller than the batch
    model.epoch = 1
    for data in (batch(), batch(depth=False), batch(images=1), batch()):
        losses = run_loss(model, data)
        model.update_teacher(1.0)
        assert all(torch.isfinite(value).all() for value in losses.values())
    # All tokens identical: grey images and no position embedding.
    nn.init.zeros_(model.teacher['backbone'].pos_embed)
    data = batch()
    for view in data['inputs']:
        view.fill_(128)
    losses = run_loss(model, data)
    total(losses).backward()
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.student.parameters())


@pytest.mark.parametrize('cls', [CrIBo, S3PT])
def test_a_batch_without_any_object(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(cls)
    model.epoch = 1
    total(run_loss(model, batch()))
    model.update_teacher(1.0)
    held, center = len(model.queue), model.object_center.value.clone()

    def apart(tokens: Tensor, samples: list):  # noqa: ANN202
        from s3pt_mm.method.clustering import Assignment

        labels = torch.cat([torch.zeros(B, N), torch.ones(B, N)], 1).long()
        counts = torch.stack(
            [
                (labels[:, :N, None] == torch.arange(4)).sum(1),
                (labels[:, N:, None] == torch.arange(4)).sum(1),
            ],
            1,
        )
        return Assignment.of(labels, counts)

    monkeypatch.setattr(model, 'cluster', apart)
    losses = run_loss(model, batch())
    total(losses).backward()
    model.update_teacher(1.0)
    assert losses['loss_cross_view'] == losses['loss_cross_image'] == 0
    assert losses['objects_per_image'] == 0 and losses['cycle_share'] == 0
    assert len(model.queue) <= held and torch.equal(model.object_center.value, center)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.student.parameters())


def test_s3pt_without_lidar_is_s3pt_without_the_depth_term() -> None:
    torch.manual_seed(1)
    with_term = make(S3PT)
    without = make(S3PT, clustering=dict(num_clusters=4, depth_weight=0.0))
    without.load_state_dict(with_term.state_dict())
    data = batch(depth=False)
    losses = []
    for model in (with_term, without):
        torch.manual_seed(2)  # drop path
        losses.append(run_loss(model, copy.deepcopy(data)))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_frozen_prototypes_do_not_move() -> None:
    model = make(S3PT)
    layers = model.student['head'].prototype_layers()
    for layer in layers:
        layer.frozen = True
    before = [layer.weight_v.clone() for layer in layers]
    optimizer = torch.optim.AdamW(model.student.parameters(), lr=1.0, weight_decay=1.0)
    total(run_loss(model, batch())).backward()
    optimizer.step()
    for layer, old in zip(layers, before, strict=False):
        assert layer.weight_v.grad is None and layer.weight_g.grad is None
        assert torch.equal(layer.weight_v, old)


def test_frozen_patch_filters_do_not_move() -> None:
    model = make(S3PT, freeze_patch_embed=True)
    before = copy.deepcopy(model.student['backbone'].state_dict())
    optimizer = torch.optim.AdamW(model.student.parameters(), lr=1e-2, weight_decay=0.1)
    model.train_step(batch(), OptimWrapper(optimizer))
    after = model.student['backbone'].state_dict()
    held = {name for name in before if torch.equal(before[name], after[name])}
    assert held == {'patch_embed.projection.weight', 'patch_embed.projection.bias'}


def test_more_clusters_than_tokens_names_both() -> None:
    model = make(CrIBo, clustering=dict(num_clusters=2 * N + 1))
    with pytest.raises(ValueError, match=f'num_clusters={2 * N + 1} exceeds the {2 * N} tokens'):
        run_loss(model, batch())


def test_checkpoint_gives_a_backbone_at_another_size(tmp_path: Path) -> None:
    model = make(S3PT)
    model.init_weights()
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    backbone = MODELS.build(
        dict(
            type='VisionTransformer',
            arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
            img_size=(32, 80),
            patch_size=PATCH,
            out_type='featmap',
            init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix='teacher.backbone.'),
        )
    )
    backbone.init_weights()
    wanted = model.teacher['backbone'].state_dict()
    for name, value in backbone.state_dict().items():
        if name != 'pos_embed':
            assert torch.equal(value, wanted[name]), name
    assert backbone(torch.zeros(1, 3, 32, 80))[-1].shape == (1, 16, 2, 5)


def test_bf16_autocast_runs() -> None:
    model = make(S3PT)
    with torch.autocast('cpu', torch.bfloat16):
        losses = run_loss(model, batch())
    total(losses).backward()
    assert all(torch.isfinite(value).all() for value in losses.values())


@pytest.mark.parametrize('cls', [DINO, CrIBo, S3PT])
def test_a_loss_moves_nothing_until_the_step_is_taken(cls: type) -> None:
    model = make(cls)
    model.epoch = 1
    before = copy.deepcopy(model.state_dict())
    run_loss(model, batch())
    model.forget_step()
    model.update_teacher(1.0)  # nothing is left of the dropped step
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    run_loss(model, batch())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.update_teacher(1.0)
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    state = {n for n in before if 'center' in n or (n.startswith('queue.') and cls is not DINO)}
    assert moved == state


@pytest.mark.parametrize(
    ('field', 'transform'), [('token_xy', 'TokenGeometry'), ('sample_seed', 'SeedFromIndex')]
)
def test_a_missing_field_names_the_transform(field: str, transform: str) -> None:
    model, data = make(S3PT), batch()
    data['data_samples'][1].pop(field)
    for preprocessor in (model.data_preprocessor, lambda data, _: data):
        with pytest.raises(ValueError, match=f'no {field}: add .*{transform}'):
            model(**preprocessor(data, True), mode='loss')


def test_seeds_stay_on_the_host_and_depth_is_optional() -> None:
    fields = TokenFields.of(batch(depth=False)['data_samples'])
    moved = fields.to('meta')  # a device whose tensors hold nothing
    assert moved.xy.device.type == 'meta' and moved.depth is moved.has_depth is None
    assert moved.seeds.tolist() == [0, 1, 2] and TokenFields.of(moved) is moved


def test_queue_counters_stay_on_the_host() -> None:
    queue = make(S3PT).queue.to('meta')
    assert queue.objects.device.type == 'meta'
    assert {queue.counts.device.type, queue.head.device.type} == {'cpu'}
    assert {'counts', 'head'} < set(queue.state_dict()) and queue.spans() == []


@pytest.mark.parametrize('cls', [DINO, S3PT])
def test_one_rank_of_ddp_with_frozen_prototypes(cls: type[TeacherStudent]) -> None:
    """torchrun with one process wraps the model too, and waits for every parameter's gradient."""
    dist = torch.distributed
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = MMDistributedDataParallel(make(cls))
        layer = model.module.student['head'].image_prototypes
        for frozen in (True, True, False):
            for each in model.module.student['head'].prototype_layers():
                each.frozen = frozen
            model.zero_grad()
            data = model.module.data_preprocessor(batch(), training=True)
            losses = model(**data, mode='loss')
            total(losses).backward()
            model.module.update_teacher(0.99)
            assert bool(layer.weight_v.grad.any()) is not frozen
    finally:
        dist.destroy_process_group()
