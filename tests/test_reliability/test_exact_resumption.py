"""A run that was stopped and resumed ends with the same bits as one that was not."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from s3pt_mm.resume.safe_checkpoint import STATE_KEY
from tests.test_reliability.tiny_run import NoisyRows, last_checkpoint, tiny_config, train
from tools.dev.compare_checkpoints import compare_checkpoints

ITER = {'train_cfg': {'type': 'ExactIterTrainLoop', 'max_iters': 18}}
ITER_VALIDATED = {'train_cfg': {'type': 'ExactIterTrainLoop', 'max_iters': 18, 'val_interval': 6}}
BY_ITER = {
    'default_hooks.checkpoint': {'type': 'SafeCheckpointHook', 'interval': 5, 'by_epoch': False}
}
UNKEYED = {'train_dataloader.dataset.keyed': False}
ACCUMULATE = {'optim_wrapper.accumulative_counts': 4}
WORKERS = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True}
VALIDATE = {
    'val_dataloader': {
        'batch_size': 4,
        'num_workers': 0,
        'dataset': {'type': 'NoisyRows', 'size': 8},
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
    },
    'val_evaluator': {'type': 'MeanOutput'},
    'val_cfg': {},
}


def runs_agree(tmp_path, changes, stops, during_validation=False):
    straight = tiny_config(tmp_path / 'straight', **changes)
    assert train(straight)
    stopped = tiny_config(tmp_path / 'stopped', **changes)
    for stop in stops:
        assert not train(stopped, stop_at=stop, during_validation=during_validation)
        stopped = tiny_config(tmp_path / 'stopped', resume=True, **changes)
    assert train(stopped)
    files = [last_checkpoint(tmp_path / name) for name in ('straight', 'stopped')]
    assert files[0].name == files[1].name
    return compare_checkpoints(*files)


@pytest.mark.parametrize(
    ('changes', 'stops'),
    [
        ({}, [1]),
        ({}, [6]),
        ({}, [8, 9, 17]),
        (UNKEYED, [8]),
        (ITER, [7, 12]),
        ({**ITER, **BY_ITER, **UNKEYED}, [5, 6]),
        (ACCUMULATE, [4, 6, 15]),
        ({**ITER, **ACCUMULATE}, [9]),
    ],
    ids=[
        'first_iteration',
        'end_of_epoch',
        'three_stops_in_mid_epoch',
        'pipeline_without_keys',
        'by_iteration',
        'by_iteration_without_keys',
        'in_an_accumulation',
        'by_iteration_in_an_accumulation',
    ],
)
def test_resumed_equals_uninterrupted(tmp_path, changes, stops):
    assert runs_agree(tmp_path, changes, stops) == []


def test_a_validation_that_draws_changes_nothing(tmp_path):
    assert runs_agree(tmp_path, VALIDATE, [8, 12]) == []


@pytest.mark.parametrize('changes', [{}, ITER_VALIDATED], ids=['by_epoch', 'by_iteration'])
def test_stopped_during_validation_repeats_only_the_validation(tmp_path, changes):
    assert runs_agree(tmp_path, {**VALIDATE, **changes}, [6], during_validation=True) == []


@HOOKS.register_module()
class WorkersLeaveTooHook(Hook):
    """Whoever asks all processes of a group to leave, asks the validation's data workers too."""

    def before_val_iter(self, runner, *args, **kwargs):
        if any(getattr(hook, 'asked_to_leave', False) for hook in runner.hooks):
            raise RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly')


def test_a_signal_that_takes_the_data_workers_of_a_validation(tmp_path):
    hooks = [{'type': name} for name in ('FollowHook', 'DrawingHook', 'WorkersLeaveTooHook')]
    changes = {**VALIDATE, 'custom_hooks': hooks}
    assert runs_agree(tmp_path, changes, [6], during_validation=True) == []


def test_workers_and_prefetching_change_nothing(tmp_path):
    """Two worker processes give the bits of in-process loading, and resume like it."""
    assert train(tiny_config(tmp_path / 'in_process'))
    assert runs_agree(tmp_path, WORKERS, [8]) == []
    files = [last_checkpoint(tmp_path / name) for name in ('in_process', 'stopped')]
    assert compare_checkpoints(*files) == []


def test_the_comparison_sees_one_bit(tmp_path):
    """The tests above rest on it: one changed weight, random word or log entry is found."""
    assert train(tiny_config(tmp_path / 'a'))
    path = last_checkpoint(tmp_path / 'a')
    whole = torch.load(path, weights_only=True)
    assert compare_checkpoints(path, path) == []
    for entry, change in {
        'state_dict/queue': lambda c: c['state_dict']['queue'].view(torch.int32)[0].add_(1),
        'exact_resume/random/0/python/1/5': lambda c: c[STATE_KEY]['random'][0]['python'][
            1
        ].__setitem__(5, 1),
        'optimizer/state/0/exp_avg': lambda c: c['optimizer']['state'][0]['exp_avg'].neg_(),
        'param_schedulers/1/_global_step': lambda c: c['param_schedulers'][1].update(
            _global_step=0
        ),
        'message_hub/log_scalars/train/loss/history': lambda c: (
            c['message_hub']['log_scalars']['train/loss'].data[0].__setitem__(0, 0.0)
        ),
    }.items():
        changed = copy.deepcopy(whole)
        change(changed)
        torch.save(changed, tmp_path / 'changed.pth')
        found = compare_checkpoints(path, tmp_path / 'changed.pth')
        assert len(found) == 1 and found[0].startswith(entry), found


def test_resuming_reads_no_past_batch(tmp_path):
    """Only the samples that are still to come are loaded, however late the run resumes."""
    cfg = tiny_config(tmp_path / 'run')
    assert not train(cfg, stop_at=17)
    NoisyRows.reads = 0
    assert train(tiny_config(tmp_path / 'run', resume=True))
    assert NoisyRows.reads == 2  # the 18th and last batch of 3 epochs of 22 samples holds two


def test_other_batch_size_continues_at_the_same_sample_and_says_so(tmp_path, capsys):
    assert not train(tiny_config(tmp_path / 'run'), stop_at=8)
    NoisyRows.reads = 0
    changes = {'train_dataloader.batch_size': 2, 'log_level': 'WARNING'}
    assert train(tiny_config(tmp_path / 'run', resume=True, **changes))
    assert "'batch_size': (4, 2)" in capsys.readouterr().out
    assert NoisyRows.reads == 3 * 22 - 22 - 8


def test_checkpoint_of_stock_mmengine_resumes_with_a_warning(tmp_path, capsys):
    stock = {
        'default_hooks.checkpoint.type': 'CheckpointHook',
        'default_hooks.checkpoint.by_epoch': False,
    }
    cfg = tiny_config(tmp_path / 'run', **stock)
    cfg.default_hooks.checkpoint.interval = 8
    cfg.train_cfg.max_epochs = 2
    assert train(cfg)
    cfg = tiny_config(
        tmp_path / 'run',
        resume=True,
        load_from=str(tmp_path / 'run/iter_8.pth'),
        log_level='WARNING',
    )
    NoisyRows.reads = 0
    assert train(cfg)
    assert 'not exact' in capsys.readouterr().out
    assert NoisyRows.reads == 3 * 22 - 22 - 8


def test_loops_refuse_other_samplers(tmp_path):
    changes = {'train_dataloader.sampler.type': 'DefaultSampler'}
    with pytest.raises(TypeError, match="train_dataloader.sampler = dict.type='KeyedSampler'"):
        train(tiny_config(tmp_path / 'run', **changes))


def test_hook_refuses_other_loops(tmp_path):
    changes = {'train_cfg': {'by_epoch': True, 'max_epochs': 1}}
    with pytest.raises(TypeError, match='ExactEpochTrainLoop'):
        train(tiny_config(tmp_path / 'run', **changes))
