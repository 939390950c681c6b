"""Checkpoints written in a thread are those that would have been written at once."""

import errno
import functools
import os
import threading
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from s3pt_mm.resume import best_checkpoint
from s3pt_mm.resume.checkpoint_files import CheckpointError, fault
from tests.test_reliability.test_exact_resumption import VALIDATE
from tests.test_reliability.tiny_run import last_checkpoint, tiny_config, train
from tools.dev.compare_checkpoints import compare_checkpoints

BACKGROUND = {'default_hooks.checkpoint.background': True}


@pytest.fixture
def writes(monkeypatch):
    """Threads that wrote a checkpoint; each waits until training has gone on."""
    real, threads = best_checkpoint.write_checkpoint, []

    def slowly(content, path, **kwargs):
        threads.append(threading.current_thread())
        moved.wait(timeout=5 if threads[-1] is not threading.main_thread() else 0)
        moved.clear()
        real(content, path, **kwargs)

    moved = threading.Event()
    monkeypatch.setattr(best_checkpoint, 'write_checkpoint', slowly)
    return threads, moved


def test_training_goes_on_while_the_old_state_is_written(tmp_path, writes, monkeypatch):
    from tests.test_reliability.tiny_run import FollowHook

    threads, moved = writes
    real = FollowHook.after_train_iter

    def after_train_iter(self, runner, *args, **kwargs):
        real(self, runner, *args, **kwargs)
        moved.set()

    assert train(tiny_config(tmp_path / 'straight'))
    monkeypatch.setattr(FollowHook, 'after_train_iter', after_train_iter)
    assert not train(tiny_config(tmp_path / 'run', **BACKGROUND), stop_at=8)
    assert train(tiny_config(tmp_path / 'run', resume=True, **BACKGROUND))
    assert threading.main_thread() not in threads[-4:]
    for name in ('epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'):
        files = [tmp_path / folder / name for folder in ('straight', 'run')]
        assert all(fault(file) is None for file in files)
        assert compare_checkpoints(*files) == []
    assert last_checkpoint(tmp_path / 'run').name == 'epoch_3.pth'


def test_an_error_surfaces_at_the_next_save(tmp_path, monkeypatch):
    real = os.fsync

    def full(descriptor):
        if threading.current_thread().name == 'checkpoint' and (tmp_path / 'epoch_1.pth').exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(CheckpointError, match='No space left.*good checkpoint is .*epoch_1.pth'):
        train(tiny_config(tmp_path, **BACKGROUND))
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    assert not list(tmp_path.glob('.*'))


def test_pruning_and_the_best_go_along(tmp_path):
    keep = {'max_keep_ckpts': 1, 'save_best': 'acc', 'rule': 'greater', 'background': True}
    assert train(tiny_config(tmp_path, **VALIDATE, **{'default_hooks.checkpoint': keep}))
    found = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert found[1:] == ['epoch_3.pth'] and found[0].startswith('best_acc_')


@HOOKS.register_module()
class CompanionHook(Hook):
    """A file of the weights beside each checkpoint, as ``BackboneFileHook`` leaves one."""

    priority = 'LOWEST'
    threads: list = []  # noqa: RUF012

    def before_save_checkpoint(self, runner, checkpoint):
        path = Path(runner.message_hub.get_info('last_ckpt')).with_suffix('.beside')
        weight = checkpoint['state_dict']['teacher.weight']
        checkpoint['write_beside'] = [functools.partial(self.write, weight, path)]

    @classmethod
    def write(cls, weight, path):
        cls.threads.append(threading.current_thread())
        if path.with_name('full').exists() and path.name.startswith('epoch_2'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert not path.with_name(path.name.replace('.beside', '.pth')).exists()
        torch.save(weight, path)


@pytest.mark.parametrize('background', [True, False])
def test_what_lies_beside_is_written_first_and_in_the_same_thread(tmp_path, background):
    hooks = {
        'default_hooks.checkpoint.background': background,
        'custom_hooks': [dict(type='CompanionHook')],
    }
    CompanionHook.threads.clear()
    assert train(tiny_config(tmp_path / 'run', **hooks))
    assert len(CompanionHook.threads) == 3
    assert (threading.main_thread() in CompanionHook.threads) != background
    for file in sorted((tmp_path / 'run').glob('epoch_?.pth')):
        content = torch.load(file, weights_only=True)
        assert 'write_beside' not in content
        beside = torch.load(file.with_suffix('.beside'))
        assert torch.equal(beside, content['state_dict']['teacher.weight'])
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad' / 'full').touch()
    with pytest.raises(CheckpointError, match='No space left.*good checkpoint is .*epoch_1.pth'):
        train(tiny_config(tmp_path / 'bad', **hooks))
    assert [path.name for path in (tmp_path / 'bad').glob('*.pth')] == ['epoch_1.pth']
