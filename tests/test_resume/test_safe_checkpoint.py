"""SafeCheckpointHook: what lies on disk, when, and what happens when something is wrong with it.

That a resumed run equals an uninterrupted one is shown in tests/test_reliability.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from s3pt_mm.common.processes import machine
from s3pt_mm.resume.checkpoint_files import CheckpointError, fault
from s3pt_mm.resume.safe_checkpoint import SafeCheckpointHook
from tests.test_reliability.tiny_run import last_checkpoint, tiny_config, train


def checkpoints(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def by_iter(**options):
    return {'default_hooks.checkpoint': {'by_epoch': False, **options}}


def test_names_and_how_many_are_kept(tmp_path):
    assert train(tiny_config(tmp_path / 'epochs', **{'default_hooks.checkpoint.max_keep_ckpts': 2}))
    assert checkpoints(tmp_path / 'epochs') == ['epoch_2.pth', 'epoch_3.pth']
    assert train(tiny_config(tmp_path / 'iters', **by_iter(interval=5, max_keep_ckpts=3)))
    assert checkpoints(tmp_path / 'iters') == ['iter_10.pth', 'iter_15.pth', 'iter_18.pth']
    assert last_checkpoint(tmp_path / 'iters').name == 'iter_18.pth'
    assert not list((tmp_path / 'iters').glob('.*'))
    assert len(list((tmp_path / 'iters').glob('*.sha256'))) == 3


def test_sigterm_saves_in_mid_epoch_and_leaves(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    assert not train(tiny_config(tmp_path), stop_at=8)
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'iter_8.pth']
    assert signal.getsignal(signal.SIGTERM) == before


def test_saving_by_time(tmp_path):
    changes = {
        'default_hooks.checkpoint': {'interval': -1, 'save_last': False, 'interval_minutes': 1e-6}
    }
    assert train(tiny_config(tmp_path / 'often', **changes))
    assert len(checkpoints(tmp_path / 'often')) == 18
    changes['default_hooks.checkpoint']['interval_minutes'] = 60
    assert train(tiny_config(tmp_path / 'never', **changes))
    assert checkpoints(tmp_path / 'never') == []


def test_torn_files_are_named_and_the_newest_whole_one_is_used(tmp_path, capsys):
    assert not train(tiny_config(tmp_path), stop_at=14)
    (tmp_path / 'iter_14.pth').write_bytes((tmp_path / 'iter_14.pth').read_bytes()[:-100])
    altered = bytearray((tmp_path / 'epoch_2.pth').read_bytes())
    altered[len(altered) // 2] ^= 1
    (tmp_path / 'epoch_2.pth').write_bytes(altered)
    assert train(tiny_config(tmp_path, resume=True, log_level='INFO'))
    out = capsys.readouterr().out
    assert f'Not resuming from {tmp_path}/iter_14.pth: torn or altered' in out
    assert f'Not resuming from {tmp_path}/epoch_2.pth: torn or altered' in out
    assert 'resumed epoch: 1, iter: 6' in out


def test_nothing_whole_is_an_error_not_a_new_start(tmp_path):
    assert not train(tiny_config(tmp_path), stop_at=3)
    (tmp_path / 'iter_3.pth').write_bytes(b'half')
    with pytest.raises(CheckpointError, match=r'(?s)iter_3.pth: torn.*Delete them to start anew'):
        train(tiny_config(tmp_path, resume=True))


def test_a_torn_file_given_by_name_is_refused(tmp_path):
    assert not train(tiny_config(tmp_path), stop_at=8)
    (tmp_path / 'iter_8.pth').write_bytes(b'half')
    with pytest.raises(CheckpointError, match='whole checkpoint beside it: .*epoch_1.pth'):
        train(tiny_config(tmp_path, resume=True, load_from=str(tmp_path / 'iter_8.pth')))


def test_a_run_of_another_recipe_is_not_resumed(tmp_path):
    assert not train(tiny_config(tmp_path), stop_at=8)
    other = {'optim_wrapper.paramwise_cfg': {'bias_lr_mult': 2.0}}
    with pytest.raises(CheckpointError, match=r'iter_8.pth was written by another.*--work-dir'):
        train(tiny_config(tmp_path, resume=True, **other))
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'iter_8.pth']
    assert train(tiny_config(tmp_path, resume=True))
    # Weights alone may start a new run, which goes on in its own way.
    weights = str(tmp_path / 'iter_8.pth')
    assert not train(tiny_config(tmp_path / 'new', load_from=weights, **other), stop_at=8)
    assert train(tiny_config(tmp_path / 'new', resume=True, **other))


def test_resuming_where_nothing_was_saved_starts_anew(tmp_path):
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    (tmp_path / f'.iter_3.pth.{machine()}.{dead.pid}.partial').write_bytes(b'killed while saving')
    assert train(tiny_config(tmp_path, resume=True))
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert not list(tmp_path.glob('.*'))


def test_a_full_disk_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    """The kernel's error at the moment of writing the second checkpoint."""
    real = os.fsync
    count = iter(range(1000))

    def full(descriptor):
        if next(count) >= 7:  # data, checksum, folder and pointer of the first checkpoint went well
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr('os.fsync', full)
    changes = {'default_hooks.checkpoint.max_keep_ckpts': 1}
    with pytest.raises(
        CheckpointError, match='No space left.*last good checkpoint is .*epoch_1.pth.*--resume'
    ):
        train(tiny_config(tmp_path, **changes))
    monkeypatch.undo()
    assert checkpoints(tmp_path) == ['epoch_1.pth']
    assert not list(tmp_path.glob('.*'))
    assert fault(tmp_path / 'epoch_1.pth') is None
    assert train(tiny_config(tmp_path, resume=True))


@HOOKS.register_module()
class BesideHook(Hook):
    """Writes a small file beside each checkpoint, as ``BackboneFileHook`` does."""

    def before_save_checkpoint(self, runner, checkpoint):
        path = Path(runner.message_hub.get_info('last_ckpt')).with_suffix('.backbone.safetensors')
        checkpoint['write_beside'] = [lambda: path.write_text('small')]


def test_a_full_disk_leaves_no_backbone_without_its_checkpoint(tmp_path, monkeypatch):
    """It takes the room in which the next attempt would fit. The message has the file's name."""

    def full(content, file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    changes = {'custom_hooks': [{'type': 'BesideHook', 'priority': 'LOWEST'}]}
    assert not train(tiny_config(tmp_path, **changes), stop_at=7)
    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(CheckpointError, match=r'epoch_2\.pth: No space left on device\. Make room'):
        train(tiny_config(tmp_path, resume=True, **changes))
    left = {path.name for path in tmp_path.glob('*.safetensors')}
    assert left == {'epoch_1.backbone.safetensors', 'iter_7.backbone.safetensors'}


LIMITED = """
import resource, sys
from pathlib import Path
from tests.test_reliability.tiny_run import tiny_config, train
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
train(tiny_config(Path(sys.argv[1]), resume=True, log_level='CRITICAL'))
"""


def test_a_write_that_really_fails(tmp_path, repository):
    """Another process that may not write more than 20 kB to a file: torch.save itself fails
    half-way."""
    assert not train(tiny_config(tmp_path), stop_at=2)
    size = (tmp_path / 'iter_2.pth').stat().st_size
    assert size > 20_000
    done = subprocess.run(
        [sys.executable, '-c', LIMITED, str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'CheckpointError' in done.stderr
    assert 'File too large' in done.stderr
    assert checkpoints(tmp_path) == ['iter_2.pth']
    assert not list(tmp_path.glob('.*'))
    assert train(tiny_config(tmp_path, resume=True))


def test_best_checkpoint_is_atomic_and_replaced_late(tmp_path):
    changes = {
        'val_dataloader': {
            'batch_size': 4,
            'num_workers': 0,
            'dataset': {'type': 'NoisyRows', 'size': 8},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        'val_evaluator': {'type': 'MeanOutput'},
        'val_cfg': {},
        'default_hooks.checkpoint': {'save_best': 'acc', 'rule': 'greater'},
    }
    assert train(tiny_config(tmp_path, **changes))
    best = [path for path in tmp_path.glob('best_*.pth')]
    assert len(best) == 1
    assert fault(best[0]) is None
    assert (tmp_path / (best[0].name + '.sha256')).is_file()
    hub = torch.load(last_checkpoint(tmp_path))['message_hub']['runtime_info']
    assert hub['best_ckpt'] == str(best[0])


def test_publishing_weights_only(tmp_path):
    changes = {'default_hooks.checkpoint.published_keys': ['meta', 'state_dict']}
    assert train(tiny_config(tmp_path, **changes))
    published = [p for p in tmp_path.glob('epoch_3-*.pth')]
    assert len(published) == 1
    assert set(torch.load(published[0])) == {'meta', 'state_dict'}


def test_options_that_break_the_promise_are_refused():
    with pytest.raises(ValueError, match='save_optimizer=False'):
        SafeCheckpointHook(save_optimizer=False)
    with pytest.raises(ValueError, match='SIGFOO'):
        SafeCheckpointHook(signals=['SIGFOO'])


def test_loading_weights_from_a_checkpoint_is_not_resuming(tmp_path):
    """load_from alone starts at iteration 0 with this run's own random states."""
    assert not train(tiny_config(tmp_path / 'a'), stop_at=3)
    cfg = tiny_config(tmp_path / 'b', load_from=str(tmp_path / 'a' / 'iter_3.pth'))
    assert train(cfg)
    assert torch.load(last_checkpoint(tmp_path / 'b'))['meta']['iter'] == 18


def test_second_sigterm_is_obeyed_at_once(tmp_path, repository):
    """A run that hangs (here: in a hook) must still be killable by a second SIGTERM."""
    code = (
        'import os, signal, sys, time\n'
        'from pathlib import Path\n'
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        'from tests.test_reliability.tiny_run import tiny_config, train\n'
        '@HOOKS.register_module()\n'
        'class Hang(Hook):\n'
        '    def after_train_iter(self, runner, *args, **kwargs):\n'
        '        os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM); '
        'time.sleep(900)\n'
        'cfg = tiny_config(Path(sys.argv[1])); cfg.custom_hooks.append(dict(type="Hang")); '
        'train(cfg)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)], cwd=repository, stderr=subprocess.DEVNULL
    )
    assert done.returncode == -signal.SIGTERM
    assert checkpoints(Path(tmp_path)) == []
