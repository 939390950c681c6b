"""tools/train.py and tools/test.py: arguments, checks, and real runs of the tools' parts."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from s3pt_mm.cli import test, train
from s3pt_mm.common.errors import DataError
from s3pt_mm.hosts import launch
from s3pt_mm.resume.checkpoint_files import CheckpointError

TINY = """
custom_imports = dict(imports=['tests.test_hosts.tiny_model'], allow_failed_imports=False)
COLLATE = dict(type='default_collate')
model = dict(type='S3PTTestTinyModel')
train_dataloader = dict(batch_size=2, num_workers=0, collate_fn=COLLATE,
                       dataset=dict(type='S3PTTestTinyRows'),
                        sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.4))
auto_scale_lr = dict(enable=True, base_batch_size=8)
default_scope = 'mmengine'
test_dataloader = dict(batch_size=1, collate_fn=COLLATE,
                       dataset=dict(type='S3PTTestTinyRows'),
                       sampler=dict(type='DefaultSampler', shuffle=False))
test_cfg = dict()
test_evaluator = dict(type='S3PTTestTinyMetric')
"""


EXACT = (
    TINY
    + """
custom_imports.update(imports=['tests.test_hosts.tiny_model', 's3pt_mm.resume'])
train_dataloader.update(batch_size=8, drop_last=True, sampler=dict(type='KeyedSampler'))
train_cfg = dict(type='ExactEpochTrainLoop', max_epochs=1)
"""
)


@pytest.fixture
def config(tmp_path) -> Path:
    """A config that trains four rows."""
    path = tmp_path / 'tiny.py'
    path.write_text(TINY)
    return path


def _train_arguments(**changes: object) -> argparse.Namespace:
    values = dict(
        config='c.py',
        work_dir=None,
        cfg_options=None,
        launcher='none',
        local_rank=0,
        resume=None,
        amp=False,
        auto_scale_lr=False,
        no_validate=False,
        epochs=None,
    )
    return argparse.Namespace(**{**values, **changes})


def test_train_then_test(repository, config, tmp_path, monkeypatch, capsys) -> None:
    """Both tools end to end: scaled rate, fp16 resolved, resume, evaluation, predictions kept."""
    monkeypatch.setattr(sys, 'path', [*sys.path, str(repository)])
    work = tmp_path / 'work'
    arguments = [str(config), '--work-dir', str(work)]
    train.main([*arguments, '--amp'])
    out = capsys.readouterr()
    text = out.out + out.err
    assert 'Learning rate: 0.4 at total batch 8 becomes 0.1 at 2' in text
    assert (work / 'epoch_1.pth').is_file()
    assert 'lr=0.1' in (work / 'tiny.py').read_text()  # the dumped config is what ran
    train.main([*arguments, '--resume', '--cfg-options', 'train_cfg.max_epochs=2'])
    assert (work / 'epoch_2.pth').is_file()
    assert 'resumed epoch: 1' in ''.join(capsys.readouterr())
    test.main(
        [
            str(config),
            str(work / 'epoch_2.pth'),
            '--work-dir',
            str(work),
            '--out',
            str(tmp_path / 'predictions.pkl'),
        ]
    )
    assert (tmp_path / 'predictions.pkl').is_file()


def test_another_models_checkpoint_is_refused(repository, config, tmp_path, monkeypatch) -> None:
    """mmengine would warn and evaluate random weights."""
    monkeypatch.setattr(sys, 'path', [*sys.path, str(repository)])
    torch.save({'state_dict': {'teacher.backbone.x': torch.zeros(1)}}, tmp_path / 'pre.pth')
    arguments = [str(config), str(tmp_path / 'pre.pth'), '--work-dir', str(tmp_path / 'work')]
    with pytest.raises(SystemExit, match=r's3pt-test: .*pre.pth does not fit.*pre-training'):
        test.main(arguments)
    arguments = [str(config), '--work-dir', str(tmp_path / 'new'), '--cfg-options']
    with pytest.raises(SystemExit, match=r's3pt-train: .*pre.pth does not fit.*0 of its 1.*--init'):
        train.main([*arguments, f'load_from={tmp_path / "pre.pth"}'])
    assert not list((tmp_path / 'new').glob('*.pth'))
    part = {'module.line.weight': torch.ones(1, 1), 'head.bias': torch.zeros(3)}
    torch.save({'state_dict': part}, tmp_path / 'part.pth')  # another head is no fault
    train.main([*arguments, f'load_from={tmp_path / "part.pth"}'])
    assert (tmp_path / 'new' / 'epoch_1.pth').is_file()


def test_another_configs_folder_and_fewer_rows_than_a_batch(
    repository, config, tmp_path, monkeypatch
) -> None:
    """One line each: whose folder it is; both numbers."""
    monkeypatch.setattr(sys, 'path', [*sys.path, str(repository)])
    other = config.with_name('other.py')
    other.write_text(EXACT)
    work = ['--work-dir', str(tmp_path / 'work')]
    train.main([str(config), *work])
    with pytest.raises(SystemExit, match='s3pt-train: work folder .* holds a run of tiny'):
        train.main([str(other), *work])
    with pytest.raises(SystemExit, match='s3pt-train: train_dataloader: 4 images .* no batch of 8'):
        train.main([str(other), '--work-dir', str(tmp_path / 'more')])


def test_errors_are_one_line(repository, config, tmp_path) -> None:
    """Missing config, data, checkpoint, launcher: file, value, remedy."""
    with pytest.raises(SystemExit, match=r'absent.py: no such config file'):
        train.main(['absent.py'])
    options = ['--cfg-options', 'train_dataloader.dataset.data_root=/absent/root']
    with pytest.raises(SystemExit, match=r'data_root=/absent/root does not exist.*s3pt-data'):
        train.main([str(config), *options])
    options = [
        '--cfg-options',
        f'train_dataloader.dataset.data_root={tmp_path}',
        'train_dataloader.dataset.ann_file=infos.pkl',
    ]
    with pytest.raises(SystemExit, match=r'ann_file=infos.pkl was not found .*infos.pkl\)'):
        train.main([str(config), *options])
    with pytest.raises(SystemExit, match='--resume x.pth: no such checkpoint'):
        train.main([str(config), '--resume', 'x.pth'])
    with pytest.raises(SystemExit, match='x.pth: no such checkpoint'):
        test.main([str(config), 'x.pth'])


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_a_log_that_meets_a_full_disk_ends_with_the_way_on(number, tmp_path) -> None:
    """Not only checkpoints are written; the newest whole one is named all the same."""

    class Full:
        work_dir = str(tmp_path)

        def train(self) -> None:
            raise OSError(number, os.strerror(number), 'scalars.json')

    with pytest.raises(CheckpointError, match='scalars.json.*There is no checkpoint yet'):
        launch.train(Full())
    for iteration in (1, 2):
        torch.save({}, tmp_path / f'iter_{iteration}.pth')
    (tmp_path / 'iter_2.pth').write_bytes(b'torn')
    with pytest.raises(CheckpointError, match='good checkpoint is .*iter_1.pth.*--resume'):
        launch.train(Full())


def test_a_disk_that_is_full_at_the_start_is_one_line(tmp_path, monkeypatch) -> None:
    """mmengine writes the config and the log before anything else."""

    def full(cfg: Config) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(launch.Runner, 'from_cfg', full)
    with pytest.raises(CheckpointError, match=f'Writing to {tmp_path} failed: No space left'):
        launch.build_runner(Config(dict(work_dir=str(tmp_path))))


class TornFiles(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> None:
        try:
            raise OSError('torn')
        except OSError as error:
            raise DataError('a b/x.jpg', 'the image is torn', 'Copy it again') from error


@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_file_is_one_line_whoever_read_it(workers, tmp_path) -> None:
    """torch makes a RuntimeError with two tracebacks of what its worker says."""

    class Reads:
        work_dir = str(tmp_path)

        def train(self) -> None:
            list(torch.utils.data.DataLoader(TornFiles(), num_workers=workers))

    with pytest.raises((DataError, launch.LaunchError)) as error:
        launch.train(Reads())
    assert str(error.value) == 'a b/x.jpg: the image is torn. Copy it again.'


def test_other_errors_pass_unchanged(tmp_path) -> None:
    class Broken:
        work_dir = str(tmp_path)

        def train(self) -> None:
            raise FileNotFoundError(errno.ENOENT, 'no such file', 'image.jpg')

    with pytest.raises(FileNotFoundError, match='image.jpg'):
        launch.train(Broken())


def test_launcher_needs_its_variable(monkeypatch) -> None:
    """World size comes from the launcher, before any process group."""
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    with pytest.raises(launch.LaunchError, match='WORLD_SIZE.*torchrun'):
        launch.world_size('pytorch')
    monkeypatch.setenv('SLURM_NTASKS', '16')
    assert launch.world_size('slurm') == 16 and launch.world_size('none') == 1


def test_rate_follows_the_launchers_ranks(config, monkeypatch) -> None:
    """Four ranks of two are the base batch."""
    monkeypatch.setenv('WORLD_SIZE', '4')
    cfg = Config.fromfile(config, import_custom_modules=False)
    (line,) = launch.prepare_training(cfg, _train_arguments(launcher='pytorch'))
    assert cfg.optim_wrapper.optimizer.lr == 0.4 and '8 = 4 ranks x 2 x 1' in line


def test_amp_and_wrapped_datasets(config) -> None:
    """--amp refuses another wrapper; data sets are found inside wrappers."""
    cfg = Config.fromfile(config, import_custom_modules=False)
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(launch.LaunchError, match='--amp .* ApexOptimWrapper'):
        launch.prepare_training(cfg, _train_arguments(amp=True))
    inner = dict(type='X', data_root='/absent/inner')
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner])
    )
    with pytest.raises(launch.LaunchError, match='/absent/inner'):
        launch.check_data(cfg, 'train_dataloader', 'c.py')


@pytest.mark.parametrize(
    ('kind', 'key'),
    [
        ('SegVisualizationHook', 'visualizer.save_dir'),
        ('Det3DVisualizationHook', 'default_hooks.visualization.test_out_dir'),
        ('VisualizationHook', 'default_hooks.visualization.out_dir'),
    ],
)
def test_pictures_of_each_library(repository, config, kind, key) -> None:
    """--show-dir reaches the key that the library reads."""
    cfg = Config.fromfile(config, import_custom_modules=False)
    args = test.parse_arguments([str(config), 'x.pth', '--show-dir', 'pics'])
    with pytest.raises(launch.LaunchError, match='default_hooks.visualization'):
        test.merge_pictures(cfg, args)
    cfg.default_hooks = dict(visualization=dict(type=kind))
    cfg.visualizer = dict(type='Visualizer')
    test.merge_pictures(cfg, args)
    value = cfg
    for part in key.split('.'):
        value = value[part]
    assert value == 'pics'
    hook = cfg.default_hooks.visualization
    assert hook.get('draw') or hook.get('enable')


@pytest.mark.parametrize('name', ['dist_train', 'dist_test', 'slurm_train'])
def test_shell_launchers_say_how(repository, name) -> None:
    """Without arguments: usage and exit code 2."""
    import subprocess

    done = subprocess.run([repository / 'tools' / f'{name}.sh'], capture_output=True, text=True)
    assert done.returncode == 2 and 'usage:' in done.stderr
