"""DivergenceHook: no bad step is ever taken, and what caused it is on disk."""

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from s3pt_mm.resume.divergence import DivergenceHook, TrainingDiverged
from tests.test_reliability.tiny_run import HardToResume, tiny_config, train


@MODELS.register_module()
class SometimesBad(HardToResume):
    """Non-finite where it is told to, after its buffers have moved; it can put them back."""

    def __init__(self, bad_at: list, kind: str = 'loss', teacher: tuple = ()) -> None:
        super().__init__()
        self.bad_at, self.kind, self.log, self.calls = bad_at, kind, dict(teacher), 0
        self.before: dict = {}

    def forward(
        self, row: list, index: list, mode: str = 'loss', data_samples: object = None
    ) -> dict:
        if mode == 'loss' and not self.before:
            self.before = {name: value.clone() for name, value in self.named_buffers()}
        losses = super().forward(row, index, mode)
        self.calls += 1
        if self.calls in self.bad_at:
            self.centre.fill_(float('nan'))
            weight = self.follow.weight
            if self.kind == 'loss':
                losses['loss'] = losses['loss'] * float('inf')
            else:  # a finite loss whose gradient is infinite
                losses['loss'] = losses['loss'] + (weight * 0).abs().sum().sqrt()
        return {**losses, **{k: torch.tensor(v) for k, v in self.log.items()}}

    def forget_step(self) -> None:
        for name, value in self.named_buffers():
            value.copy_(self.before[name])


@HOOKS.register_module()
class Recorder(Hook):
    """Parameters, buffers and optimiser state after every iteration."""

    priority = 'LOWEST'
    seen: list

    def before_train(self, runner: Runner) -> None:
        type(self).seen = [snapshot(runner)]

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        self.seen.append(snapshot(runner))
        if runner.optim_wrapper._inner_count % runner.optim_wrapper._accumulative_counts == 0:
            runner.model.before = {}  # the step is over, taken or refused


def snapshot(runner):
    state = {name: value.clone() for name, value in runner.model.state_dict().items()}
    for index, moments in runner.optim_wrapper.state_dict()['state'].items():
        state.update({f'{index}/{name}': value.clone() for name, value in moments.items()})
    return state


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def config(folder, bad_at, kind='loss', teacher=(), hook=None, **changes):
    cfg = tiny_config(folder, **changes)
    cfg.model = dict(type='SometimesBad', bad_at=bad_at, kind=kind, teacher=list(teacher))
    cfg.custom_hooks += [dict(type='DivergenceHook', **(hook or {})), dict(type='Recorder')]
    return cfg


@pytest.mark.parametrize('kind', ['loss', 'gradient'])
def test_stop_before_the_step(tmp_path, kind):
    cfg = config(tmp_path, [8], kind)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(
        TrainingDiverged, match=f'Iteration 8: (the|a) {kind} is not finite.*iter_8.json'
    ):
        runner.train()
    now, good = snapshot(runner), Recorder.seen[7]
    untouched = [k for k in good if k not in ('centre', 'queue', 'filled') and 'student.1' not in k]
    assert all(torch.equal(now[k], good[k]) for k in untouched)
    report = json.loads((tmp_path / 'divergence' / 'iter_8.json').read_text())
    assert report['iteration'] == 8 and kind in report['reason']
    # The last good checkpoint is still there, and a resumed run starts from finite numbers.
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']


@pytest.mark.parametrize('kind', ['loss', 'gradient'])
def test_skip_leaves_everything_as_before_the_batch(tmp_path, kind):
    runner = Runner.from_cfg(config(tmp_path, [8, 9], kind, hook=dict(non_finite='skip')))
    runner.train()
    seen = Recorder.seen
    assert len(seen) == 19
    assert same(seen[7], seen[8]) and same(seen[8], seen[9])
    assert not same(seen[9], seen[10])
    assert all(torch.isfinite(v).all() for v in seen[-1].values() if v.is_floating_point())
    assert sorted(p.name for p in (tmp_path / 'divergence').iterdir()) == [
        'iter_8.json',
        'iter_9.json',
    ]


def test_skip_drops_a_whole_accumulation(tmp_path):
    changes = {'optim_wrapper.accumulative_counts': 3}
    Runner.from_cfg(config(tmp_path, [5], hook=dict(non_finite='skip'), **changes)).train()
    seen = Recorder.seen
    weights = [s['follow.weight'] for s in seen]
    assert [torch.equal(weights[i], weights[i + 3]) for i in (0, 3, 6)] == [False, True, False]
    assert same(seen[3], seen[6])


def test_too_many_skips_stop(tmp_path):
    hook = dict(non_finite='skip', max_skips=2)
    with pytest.raises(TrainingDiverged, match='Iteration 9: .* 3 steps in a row'):
        Runner.from_cfg(config(tmp_path, [7, 8, 9], hook=hook)).train()


def test_skips_in_a_row_are_counted_anew_after_a_good_step(tmp_path):
    hook = dict(non_finite='skip', max_skips=1)
    Runner.from_cfg(config(tmp_path, [7, 9, 11], hook=hook)).train()
    assert len(list((tmp_path / 'divergence').iterdir())) == 3


def test_skips_in_a_row_are_counted_on_in_a_resumed_run(tmp_path):
    hook = dict(non_finite='skip', max_skips=2)
    assert not train(config(tmp_path, [7, 8], hook=hook), stop_at=8)
    with pytest.raises(TrainingDiverged, match='Iteration 9: .* 3 steps in a row'):
        train(config(tmp_path, [1], hook=hook, resume=True))


def test_collapse_is_counted_on_in_a_resumed_run(tmp_path):
    hook, teacher = dict(collapse='stop', patience=9, begin=0), [('teacher_entropy', 0.0)]
    assert not train(config(tmp_path, [], teacher=teacher, hook=hook), stop_at=5)
    with pytest.raises(TrainingDiverged, match='Iteration 9: collapse, .*for 9 iterations'):
        train(config(tmp_path, [], teacher=teacher, hook=hook, resume=True))


def test_a_bad_loss_of_the_other_rank_is_bad_here_too(monkeypatch):
    """Each rank waits for the others' verdict; else one would step and the other not."""
    other = torch.tensor([1.0, 0.0])

    def all_reduce(here, op):
        here.copy_({'max': torch.maximum, 'sum': torch.add}[op](here, other))

    class Wrapper:
        param_groups = [dict(params=[])]

    hook = DivergenceHook()
    assert hook._reason(Wrapper()) is None
    monkeypatch.setattr('s3pt_mm.resume.divergence.dist.all_reduce', all_reduce)
    assert hook._reason(Wrapper()) == 'the loss is not finite'
    other[:] = torch.tensor([0.0, 1.0])
    assert hook._reason(Wrapper()) == 'a gradient is not finite'


def test_a_healthy_run_is_not_changed_by_the_guard(tmp_path):
    Runner.from_cfg(config(tmp_path / 'guarded', [])).train()
    guarded = Recorder.seen[-1]
    cfg = config(tmp_path / 'alone', [])
    cfg.custom_hooks = [h for h in cfg.custom_hooks if h['type'] != 'DivergenceHook']
    Runner.from_cfg(cfg).train()
    assert same(guarded, Recorder.seen[-1])
    assert not (tmp_path / 'guarded' / 'divergence').exists()


@pytest.mark.parametrize(
    ('teacher', 'words'),
    [
        ((('teacher_entropy', 1e-4), ('teacher_kl_uniform', 3.0)), 'one prototype takes all'),
        ((('teacher_entropy', 3.4), ('teacher_kl_uniform', 1e-6)), 'all outputs alike'),
    ],
)
def test_collapse_at_either_end_after_a_set_time(tmp_path, teacher, words):
    hook = dict(collapse='stop', patience=5, begin=4)
    with pytest.raises(TrainingDiverged, match=f'Iteration 9: collapse, .*{words}.*5 iterations'):
        Runner.from_cfg(config(tmp_path, [], teacher=teacher, hook=hook)).train()


def test_collapse_warns_and_goes_on(tmp_path, capsys):
    hook = dict(collapse='warn', patience=6, begin=0)
    teacher = [('teacher_entropy', 0.0)]
    Runner.from_cfg(config(tmp_path, [], teacher=teacher, hook=hook, log_level='WARNING')).train()
    assert capsys.readouterr().out.count('collapse, teacher entropy') == 3


def test_healthy_values_are_no_collapse(tmp_path):
    hook = dict(collapse='stop', patience=1, begin=0)
    teacher = [('teacher_entropy', 2.0), ('teacher_kl_uniform', 1.0)]
    Runner.from_cfg(config(tmp_path, [], teacher=teacher, hook=hook)).train()


def test_the_batch_is_described_by_files_and_keys():
    from s3pt_mm.resume.divergence import _describe
    from s3pt_mm.resume.keyed_sampler import KeyedIndex

    sample = BaseDataElement(metainfo=dict(img_path='a/b.jpg', sample_idx=KeyedIndex(4, 1, 2)))
    sample.set_field(torch.tensor(77), 'sample_seed')
    assert _describe({'inputs': [], 'data_samples': [sample]}) == [
        dict(img_path='a/b.jpg', sample_idx=4, sample_seed=77, sampler_seed=1, sampler_epoch=2)
    ]


def test_a_falling_loss_scale_is_divergence():
    """With a loss scaler, infinite gradients are normal; a scale below one is not."""

    class Scaler:
        scale = torch.tensor(1024.0)

        def is_enabled(self):
            return True

        def _get_scale_async(self):
            return self.scale

    class Wrapper:
        loss_scaler = Scaler()
        param_groups = [dict(params=[])]

    hook = DivergenceHook()
    assert hook._reason(Wrapper()) is None
    Scaler.scale = torch.tensor(0.5)
    assert hook._reason(Wrapper()) == 'the loss scale fell below 1'


@pytest.mark.parametrize('wrong', [dict(non_finite='ignore'), dict(collapse='skip')])
def test_unknown_policies(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        DivergenceHook(**wrong)
