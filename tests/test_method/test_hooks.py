"""The method's hooks in a Runner that trains a tiny S3PT: 3 epochs of 4 iterations."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from torch.utils.data import Dataset

import s3pt_mm.method.param_groups  # noqa: F401 - registers the constructor
from s3pt_mm.method.hooks.last_layer_freeze import LastLayerFreezeHook
from s3pt_mm.method.hooks.method_schedule import MethodScheduleHook
from s3pt_mm.method.hooks.teacher_update import TeacherUpdateHook
from tests.test_reliability.rank_training import batch_of, tiny_model


@OPTIM_WRAPPERS.register_module()
class ScalingOptimWrapper(OptimWrapper):
    """``AmpOptimWrapper``'s use of a loss scaler, on a CPU; the first two gradients overflow."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu')

    def backward(self, loss: torch.Tensor, **kwargs: object) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        if self._inner_count < 2:
            self.optimizer.param_groups[0]['params'][0].grad.fill_(torch.inf)
        self._inner_count += 1

    def step(self, **kwargs: object) -> None:
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


HOOK_CFGS = (
    dict(
        type='MethodScheduleHook',
        linear=dict(
            teacher_temperature=dict(start=0.04, end=0.07, epochs=3),
            depth_weight=dict(start=2.0, end=4.0, epochs=1),
        ),
    ),
    dict(type='LastLayerFreezeHook', epochs=1),
    dict(type='TeacherUpdateHook', start=0.9, end=1.0),
    dict(type='TrainingLogHook'),
)


@DATASETS.register_module()
class NoiseViews(Dataset):
    """Eight images of two views."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        batch = batch_of(0, [int(index)], crops=2)
        return dict(inputs=[v[0] for v in batch['inputs']], data_samples=batch['data_samples'][0])


@HOOKS.register_module()
class MethodWitness(Hook):
    """What the model is before and after every iteration's other hooks."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        type(self).seen = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None) -> None:
        model = runner.model
        layers = model.student['head'].prototype_layers()
        self.now = dict(
            epoch=model.epoch,
            held_before=len(model.queue),
            temperature=model.teacher_temperature,
            depth_weight=model.depth_weight,
            frozen=[layer.frozen for layer in layers],
            prototypes=layers[0].weight_v.clone(),
            student=model.student['backbone'].cls_token.clone(),
            teacher=model.teacher['backbone'].cls_token.clone(),
            decay=max(group['weight_decay'] for group in runner.optim_wrapper.param_groups),
        )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict = None, outputs: dict = None
    ) -> None:
        model, hub = runner.model, runner.message_hub
        self.now.update(
            prototypes_after=model.student['head'].image_prototypes.weight_v.clone(),
            held=len(model.queue),
            student_after=model.student['backbone'].cls_token.clone(),
            teacher_after=model.teacher['backbone'].cls_token.clone(),
            logged={
                name: hub.get_scalar(f'train/{name}').current()
                for name in (
                    'teacher_temperature',
                    'teacher_momentum',
                    'weight_decay',
                    'images_per_second',
                )  # fmt: skip
            },
        )
        type(self).seen.append(self.now)


def train(folder: Path, hooks: tuple = HOOK_CFGS, **changes: object) -> list[dict]:
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(folder),
            experiment_name=f'hooks_{random.SystemRandom().random()}',
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=dict(type='NoiseViews'),
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.04),
                constructor='PretrainOptimConstructor',
            ),
            param_scheduler=[
                dict(type='CosineAnnealingWeightDecay', eta_min=0.4, T_max=12, by_epoch=False)
            ],
            custom_hooks=[*hooks, dict(type='MethodWitness')],
            log_level='ERROR',
        )
    )
    cfg.merge_from_dict(changes)
    Runner(model=tiny_model('S3PT'), **{k: v for k, v in cfg.items()}).train()
    return MethodWitness.seen


@pytest.fixture(scope='module')
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """One record an iteration."""
    return train(tmp_path_factory.mktemp('hooks'))


def test_the_schedule_moves_by_epoch_and_tells_the_epoch(seen: list[dict]) -> None:
    assert [now['epoch'] for now in seen] == [0] * 4 + [1] * 4 + [2] * 4
    wanted = [0.04] * 4 + [0.055] * 4 + [0.07] * 4
    assert [now['temperature'] for now in seen] == pytest.approx(wanted)
    assert [now['logged']['teacher_temperature'] for now in seen] == pytest.approx(wanted)
    assert {now['depth_weight'] for now in seen} == {4.0}


def test_prototypes_are_frozen_for_the_first_epoch_only(seen: list[dict]) -> None:
    assert [now['frozen'] for now in seen] == [[True, True]] * 4 + [[False, False]] * 8
    still = [torch.equal(now['prototypes'], now['prototypes_after']) for now in seen]
    assert still == [True] * 4 + [False] * 8
    assert not any(torch.equal(now['student'], now['student_after']) for now in seen)


def test_the_teacher_follows_on_a_cosine_every_iteration(seen: list[dict]) -> None:
    hook = TeacherUpdateHook(0.9, 1.0)
    for step, now in enumerate(seen):
        momentum = hook.momentum(step, 12)
        assert now['logged']['teacher_momentum'] == pytest.approx(momentum)
        wanted = momentum * now['teacher'] + (1 - momentum) * now['student_after']
        torch.testing.assert_close(now['teacher_after'], wanted)
    assert hook.momentum(0, 12) == 0.9 and hook.momentum(6, 12) == pytest.approx(0.95)
    assert not torch.equal(seen[0]['teacher'], seen[0]['teacher_after'])


def test_the_log_holds_decay_and_speed(seen: list[dict]) -> None:
    decays = [now['logged']['weight_decay'] for now in seen]
    assert decays == [now['decay'] for now in seen] and decays[0] == pytest.approx(0.04)
    assert all(later > earlier for earlier, later in zip(decays, decays[1:], strict=False))
    assert all(now['logged']['images_per_second'] > 0 for now in seen)


def test_the_teacher_waits_for_the_accumulation(tmp_path: Path) -> None:
    seen = train(tmp_path, **{'optim_wrapper.accumulative_counts': 3})
    moved = [not torch.equal(now['teacher'], now['teacher_after']) for now in seen]
    assert moved == [False, False, True] * 4


@pytest.mark.parametrize('fused', [True, False])
def test_nothing_moves_where_the_loss_scaler_skipped_the_step(tmp_path: Path, fused: bool) -> None:
    seen = train(
        tmp_path,
        **{
            'optim_wrapper.type': 'ScalingOptimWrapper',
            'optim_wrapper.optimizer.fused': fused,
        },
    )
    taken = [not torch.equal(now['student'], now['student_after']) for now in seen]
    moved = [not torch.equal(now['teacher'], now['teacher_after']) for now in seen]
    pushed = [now['held'] != now['held_before'] for now in seen[:4]]
    assert taken[:4] == moved[:4] == pushed == [False, False, True, True]


def test_freezing_by_iterations(tmp_path: Path) -> None:
    hooks = tuple(
        dict(type='LastLayerFreezeHook', iterations=6) if 'Freeze' in cfg['type'] else cfg
        for cfg in HOOK_CFGS
    )
    seen = train(tmp_path, hooks)
    assert [now['frozen'][0] for now in seen] == [True] * 6 + [False] * 6


def test_errors_come_before_training(tmp_path: Path) -> None:
    wrong = dict(type='MethodScheduleHook', linear=dict(warmth=dict(start=0, end=1, epochs=2)))
    with pytest.raises(AttributeError, match="S3PT has no 'warmth'"):
        train(tmp_path, (wrong, *HOOK_CFGS[1:]))
    with pytest.raises(ValueError, match='at least one epoch'):
        MethodScheduleHook(dict(a=dict(start=0, end=1, epochs=0)))
    with pytest.raises(ValueError, match='not both: 1, 2'):
        LastLayerFreezeHook(epochs=1, iterations=2)
    with pytest.raises(ValueError, match='start=0.9, end=0.5'):
        TeacherUpdateHook(0.9, 0.5)


def test_backbone_waits_for_its_heads(tmp_path: Path) -> None:
    """One epoch of four iterations without a step of the backbone, then it moves."""
    seen = train(tmp_path, (*HOOK_CFGS, dict(type='BackboneFreezeHook', epochs=1)))
    start = seen[0]['student']
    still = [torch.equal(now['student'], start) for now in seen]
    assert still[:5] == [True] * 5 and not any(still[5:])
