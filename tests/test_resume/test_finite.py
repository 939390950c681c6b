"""No checkpoint holds a state that training cannot go on from."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from s3pt_mm.resume.checkpoint_files import CheckpointError
from s3pt_mm.resume.divergence import TrainingDiverged
from tests.test_reliability.test_exact_resumption import VALIDATE
from tests.test_reliability.tiny_run import last_checkpoint, tiny_config, train
from tests.test_resume.test_divergence import Recorder, config


@HOOKS.register_module()
class Spoil(Hook):
    """Makes a buffer NaN in an iteration."""

    def __init__(self, at: int = 8) -> None:
        self.at = at

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if runner.iter == self.at:
            runner.model.centre[2] = float('nan')


def test_a_poisoned_state_is_not_written(tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'Spoil'}]
    with pytest.raises(CheckpointError, match=r'not finite \(first: centre\).*epoch_1.pth'):
        train(cfg)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    assert train(tiny_config(tmp_path, resume=True))


def is_finite(path):
    values = torch.load(path)['state_dict'].values()
    return all(torch.isfinite(v).all() for v in values if v.is_floating_point())


@pytest.mark.parametrize('signalled', [True, False])
def test_nor_at_a_validation_or_as_the_best(tmp_path, signalled):
    """Epoch 2 ends poisoned, with no save due: the signal came in its validation."""
    keep = {'interval': 10, 'save_best': 'acc', 'rule': 'less'}
    cfg = tiny_config(tmp_path, **VALIDATE, **{'default_hooks.checkpoint': keep})
    cfg.custom_hooks = [*cfg.custom_hooks, {'type': 'Spoil', 'at': 11}]
    stop = dict(stop_at=12, during_validation=True) if signalled else {}
    with pytest.raises(CheckpointError, match=r'not finite \(first: '):
        train(cfg, **stop)
    found = list(tmp_path.glob('*.pth'))
    assert found and all(is_finite(path) for path in found)


def test_validation_alone_has_no_optimiser_to_look_at(tmp_path):
    """``Runner.val()`` from a config: its hooks save the best, and nothing was built to train."""
    keep = {'interval': 10, 'save_best': 'acc', 'rule': 'less'}
    cfg = tiny_config(tmp_path, **VALIDATE, **{'default_hooks.checkpoint': keep})
    assert 'acc' in next(iter(Runner.from_cfg(cfg).val()))


@pytest.mark.parametrize('policy', ['stop', 'skip'])
def test_a_save_in_a_bad_accumulation_waits_for_its_end(tmp_path, policy):
    """Micro-batch 7 of 7 to 9 is bad, and a signal comes with it."""
    accumulate = {'optim_wrapper.accumulative_counts': 3}
    cfg = config(tmp_path, [7], hook=dict(non_finite=policy), **accumulate)
    if policy == 'stop':
        with pytest.raises(TrainingDiverged):
            train(cfg, stop_at=7)
        assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    else:
        assert not train(cfg, stop_at=7)
        assert last_checkpoint(tmp_path).name == 'iter_9.pth'
    assert all(is_finite(path) for path in tmp_path.glob('*.pth'))
    assert train(config(tmp_path, [], hook=dict(non_finite=policy), resume=True, **accumulate))


def test_counters_of_skips_survive_a_stop(tmp_path):
    """Two bad steps, a stop, one more: three in a row; a good step begins the count anew."""
    hook = dict(non_finite='skip', max_skips=2)
    assert not train(config(tmp_path / 'a', [7, 8], hook=hook), stop_at=8)
    assert torch.load(last_checkpoint(tmp_path / 'a'))['divergence']['skips'] == 2
    with pytest.raises(TrainingDiverged, match='3 steps in a row'):
        train(config(tmp_path / 'a', [1], hook=hook, resume=True))
    assert train(config(tmp_path / 'b', [3, 4, 6, 7, 9], hook=hook))
    assert len(Recorder.seen) == 19
