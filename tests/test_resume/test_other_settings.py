"""Resuming with another length, rate, batch, data or method: done right and said, or refused."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner

from s3pt_mm.resume.checkpoint_files import CheckpointError
from s3pt_mm.resume.safe_checkpoint import STATE_KEY
from s3pt_mm.resume.schedules import stretch
from tests.test_reliability.tiny_run import HardToResume, last_checkpoint, tiny_config, train


@HOOKS.register_module()
class Rates(Hook):
    """The learning rate that each iteration used."""

    priority = 'VERY_HIGH'
    seen: dict = {}

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        self.seen[runner.iter] = runner.optim_wrapper.get_lr()['lr'][0]


@MODELS.register_module()
class AnotherMethod(HardToResume):
    """The same tensors, another method."""


def rates(cfg, **kwargs):
    Rates.seen = {}
    cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'Rates'}]
    done = train(cfg, **kwargs)
    return done, Rates.seen


def length(epochs):
    return {'train_cfg': {'type': 'ExactEpochTrainLoop', 'max_epochs': epochs}}


def with_schedule(epochs, folder, **changes):
    """A run whose config was written for this many epochs."""
    cfg = tiny_config(folder, **length(epochs), **changes)
    cfg.param_scheduler[1]['T_max'] = 6 * epochs
    return cfg


def test_longer_and_shorter_runs_get_the_rates_they_would_have_had(tmp_path, capsys):
    _, expected = rates(with_schedule(5, tmp_path / 'straight'))
    assert train(tiny_config(tmp_path / 'run'))
    assert not rates(tiny_config(tmp_path / 'run', resume=True, log_level='INFO', **length(5)),
                     stop_at=22)[0]  # fmt: skip
    assert Rates.seen == {i: expected[i] for i in range(18, 22)}
    out = capsys.readouterr().out
    assert "'train_cfg.max_epochs': (3, 5)" in out
    assert f'learning rates at iteration 18: {expected[18]:.3e}' in out
    # Once more with the same command: nothing changes any more.
    done, seen = rates(tiny_config(tmp_path / 'run', resume=True, **length(5)))
    assert done and seen == {i: expected[i] for i in range(22, 30)}
    # And shorter, from an earlier checkpoint.
    _, expected = rates(with_schedule(2, tmp_path / 'short'))
    named = dict(resume=True, load_from=str(tmp_path / 'run' / 'epoch_1.pth'))
    assert rates(tiny_config(tmp_path / 'run', **named, **length(2))) == (
        True,
        {i: expected[i] for i in range(6, 12)},
    )


def test_another_rate_is_used_and_said(tmp_path, capsys):
    rate = {'optim_wrapper.optimizer.lr': 1.0}
    _, expected = rates(tiny_config(tmp_path / 'straight', **rate))
    assert not train(tiny_config(tmp_path / 'run'), stop_at=8)
    _, seen = rates(tiny_config(tmp_path / 'run', resume=True, log_level='INFO', **rate))
    assert seen == {i: expected[i] for i in range(8, 18)}
    assert "'optim_wrapper.optimizer.lr': (0.01, 1.0)" in capsys.readouterr().out


@pytest.mark.parametrize(('size', 'batch_size', 'batch'), [(12, 4, 1), (60, 4, 5), (22, 2, 4)])
def test_the_same_share_of_an_epoch(tmp_path, capsys, size, batch_size, batch):
    """8 of 22 samples of the second epoch are done; the data set shrinks, grows, or the batch."""
    assert not train(tiny_config(tmp_path), stop_at=8)
    changes = {
        'train_dataloader.batch_size': batch_size,
        'train_dataloader.dataset.size': size,
    }
    _, seen = rates(tiny_config(tmp_path, resume=True, log_level='INFO', **changes))
    an_epoch = -(-size // batch_size)
    assert list(seen) == list(range(an_epoch + batch, 3 * an_epoch))
    assert 'not exactly' in capsys.readouterr().out
    assert torch.load(last_checkpoint(tmp_path))['meta']['iter'] == 3 * an_epoch


def test_a_checkpoint_of_two_ranks_goes_on_with_one_at_the_same_share(tmp_path, capsys):
    """Two ranks had done two steps of 2 x 4 of 22 samples: one rank has four of its steps done."""
    assert not train(tiny_config(tmp_path), stop_at=8)
    path = last_checkpoint(tmp_path)
    checkpoint = torch.load(path)
    assert checkpoint[STATE_KEY]['position']['world_size'] == 1
    checkpoint[STATE_KEY]['position']['world_size'] = 2
    torch.save(checkpoint, path)
    path.with_name(path.name + '.sha256').unlink()
    _, seen = rates(tiny_config(tmp_path, resume=True, log_level='INFO'))
    assert list(seen) == list(range(6 + 4, 18))
    assert "'world_size': (2, 1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'model.type': 'AnotherMethod'}, 'method is HardToResume, this config has AnotherMethod'),
        ({'optim_wrapper.optimizer.type': 'SGD'}, 'optimizer is AdamW, this config has SGD'),
        (
            {'train_cfg': {'type': 'ExactIterTrainLoop', 'max_iters': 18}},
            'loop is ExactEpochTrainLoop, this config has ExactIterTrainLoop',
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, changes, words):
    assert not train(tiny_config(tmp_path), stop_at=8)
    with pytest.raises(CheckpointError, match=rf'iter_8.pth was written .*{words}.*--work-dir'):
        train(tiny_config(tmp_path, resume=True, **changes))


def test_another_programs_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save({'state_dict': {'x': torch.zeros(1)}, 'meta': {'iter': 3}}, tmp_path / 'iter_3.pth')
    with pytest.raises(CheckpointError, match=r'\d+ tensors differ, the first is centre'):
        train(tiny_config(tmp_path, resume=True))


def test_nothing_left_to_do_and_nothing_there(tmp_path, capsys):
    assert train(tiny_config(tmp_path, resume=True, log_level='INFO'))
    assert f'No checkpoint in {tmp_path}, starting anew' in capsys.readouterr().out
    assert train(tiny_config(tmp_path, resume=True, log_level='INFO'))
    out = capsys.readouterr().out
    assert f'Nothing left to do: the run in {tmp_path} has done its 18 iterations' in out


def test_only_schedules_that_ended_with_the_run_are_stretched():
    warm_up = dict(type='LinearLR', begin=0, end=4, by_epoch=True)
    cosine = dict(type='CosineAnnealingLR', begin=4, end=40, T_max=36, by_epoch=True)
    steps = dict(type='PolyLR', end=480, by_epoch=False)
    assert stretch([warm_up, cosine, steps], epochs=(40, 50), iterations=(480, 600)) == [
        warm_up,
        {**cosine, 'end': 50, 'T_max': 46},
        {**steps, 'end': 600},
    ]
