"""Work folders, workers, shared memory, accelerators: one line with the remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.hosts import checks

GOLDEN = Path(__file__).resolve().parents[1] / 'golden'
S3PT, DINO = 'configs/s3pt/vits16_nuscenes.py', 'configs/dino/vits16_nuscenes.py'


def folder_config(folder: Path, model: str = 'S3PT') -> Config:
    return Config(dict(work_dir=str(folder), model=dict(type=model)))


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        (S3PT, 's3pt/vits16_nuscenes'),
        ('/venv/s3pt_mm/.mim/configs/petr/vits16_nuscenes.py', 'petr/vits16_nuscenes'),
        ('/configs/old/configs/a.py', 'a'),
        ('/tmp/my.py', 'my'),
    ],
)
def test_a_config_is_named_by_its_place(path: str, name: str) -> None:
    assert checks.config_name(path) == name


def test_another_configs_run_is_refused_by_name(tmp_path: Path) -> None:
    checks.claim_work_folder(folder_config(tmp_path), S3PT, training=True)
    checks.claim_work_folder(folder_config(tmp_path), S3PT, training=True)  # the same again
    with pytest.raises(ConfigError, match=r's3pt/vits16_nuscenes.*not of dino/.*--work-dir'):
        checks.claim_work_folder(folder_config(tmp_path, 'S3PTDINO'), DINO, training=True)
    with pytest.raises(ConfigError, match=r'\(S3PT\), not of .*\(CrIBo\)'):  # overridden model
        checks.claim_work_folder(folder_config(tmp_path, 'CrIBo'), S3PT, training=True)
    checks.claim_work_folder(folder_config(tmp_path), DINO, training=False)  # a test writes logs


def test_a_folder_of_before_the_record_is_known_by_its_config(tmp_path: Path) -> None:
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    (tmp_path / 'linear_vits16_nuimages.py').write_text('')
    with pytest.raises(ConfigError, match='holds a run of linear_vits16_nuimages'):
        checks.claim_work_folder(folder_config(tmp_path), S3PT, training=True)


def test_a_file_in_its_place_and_a_read_only_disk(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / 'file').write_text('')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(ConfigError, match=r'file is a file; choose another place'):
            checks.claim_work_folder(folder_config(folder), S3PT, training=True)

    def refuse(**kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)  # root may write anywhere
    with pytest.raises(ConfigError, match='Read-only file system; choose another place'):
        checks.claim_work_folder(folder_config(tmp_path / 'new'), S3PT, training=True)


def loaders(workers: int) -> Config:
    loader = dict(num_workers=workers, persistent_workers=True, prefetch_factor=2)
    return Config(dict(train_dataloader=dict(loader), val_dataloader=dict(loader)))


def test_no_workers_is_a_number_too() -> None:
    cfg = loaders(0)
    checks.fit_loaders(cfg, {})
    assert not cfg.train_dataloader.persistent_workers
    assert 'prefetch_factor' not in cfg.train_dataloader
    torch.utils.data.DataLoader([1, 2], **cfg.train_dataloader)


def test_no_more_workers_than_cpus_unless_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(checks, 'usable_cpus', lambda: 4)
    cfg = loaders(8)
    lines = checks.fit_loaders(cfg, {'val_dataloader.num_workers': 8}, ranks=2)
    assert (cfg.train_dataloader.num_workers, cfg.val_dataloader.num_workers) == (2, 8)
    assert lines == ['train_dataloader: 2 workers in place of 8: so many CPUs.']


def test_shared_memory_of_64_kilobytes(monkeypatch) -> None:
    usage = namedtuple('usage', 'total used free')(65536, 0, 65536)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(ConfigError, match='64 kB.*--shm-size.*num_workers=0'):
        checks.fit_loaders(loaders(2), {})
    checks.fit_loaders(loaders(0), {})


@pytest.fixture
def unusable_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    answer = SimpleNamespace(stdout='NVIDIA H100, 470.1\n')
    monkeypatch.setattr(subprocess, 'run', lambda *args, **kwargs: answer)


def test_a_gpu_that_torch_cannot_use_is_an_error_unless_the_cpu_is_meant(
    unusable_gpu, monkeypatch
) -> None:
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    with pytest.raises(ConfigError, match=r'H100, 470.1.*CUDA 13.0.*CUDA_VISIBLE_DEVICES=-1'):
        checks.check_accelerator()
    monkeypatch.setattr(torch.version, 'cuda', None)
    with pytest.raises(ConfigError, match='built for the CPU alone'):
        checks.check_accelerator()
    for meant in ('', '-1'):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', meant)
        checks.check_accelerator()


def test_no_gpu_is_no_error(unusable_gpu, monkeypatch) -> None:
    def absent(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError('nvidia-smi')

    monkeypatch.setattr(subprocess, 'run', absent)
    checks.check_accelerator()


def test_threads_follow_the_cpus(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch, 'set_num_threads', asked.append)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 32)
    monkeypatch.setattr(checks, 'usable_cpus', lambda: 4)
    monkeypatch.setenv('OMP_NUM_THREADS', '32')
    checks.limit_threads()
    assert asked == []
    monkeypatch.delenv('OMP_NUM_THREADS')
    checks.limit_threads(ranks=2)
    assert asked == [2]


def test_a_test_needs_every_weight() -> None:
    runner = SimpleNamespace(model=nn.Linear(2, 3), _load_from='x.pth')
    check = checks.WholeModelHook().after_load_checkpoint
    check(runner, dict(state_dict=runner.model.state_dict()))
    check(runner, {f'module.{name}': value for name, value in runner.model.state_dict().items()})
    teacher = {
        f'teacher.backbone.{name}': value for name, value in runner.model.state_dict().items()
    }
    with pytest.raises(
        ConfigError, match=r'x.pth.*weight is absent in the file.*pre-training checkpoint'
    ):
        check(runner, dict(state_dict=teacher))
    with pytest.raises(
        ConfigError, match=r'weight is \(3, 5\) in the file and \(3, 2\) in the model'
    ):
        check(runner, nn.Linear(5, 3).state_dict())


def test_an_image_folder_has_no_info_file(tmp_path: Path) -> None:
    dataset = dict(type='ImageFolderDataset', data_root=str(tmp_path), ann_file='infos.pkl')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(ConfigError, match='an image folder has no info file'):
        checks.check_data(cfg, 'train_dataloader', 'c.py')


class _Detector:
    """Names and shapes of PETR with VoVNet-99."""

    def __init__(self) -> None:
        shapes = json.loads((GOLDEN / 'petr_vovnet_state_dict_shapes.json').read_text())
        self.state = {n: torch.empty(shape, device='meta') for n, shape in shapes.items()}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.state


def test_public_files_of_a_part_or_most_of_a_model_are_no_refusal() -> None:
    """VoVNet as PETR's project links it, beside another detector's head, or for other classes."""
    model = _Detector()
    runner = SimpleNamespace(model=model, _load_from='vovnet.pth')
    hook = checks.StartingWeightsHook()
    vovnet = {n: t for n, t in model.state.items() if n.startswith('img_backbone.')}
    assert 'img_backbone.stem.stem_1/conv.weight' in vovnet and len(vovnet) > 500
    another = {f'fcos_head.{i}': torch.empty(1) for i in range(2 * len(vovnet))}
    classes = {n: t[:7] if '.cls_branches.' in n else t for n, t in model.state.items()}
    wrapped = {f'module.{n}': t for n, t in vovnet.items()}
    for state in (vovnet, vovnet | another, classes, wrapped, model.state):
        hook.after_load_checkpoint(runner, dict(state_dict=state))
    bare = {n.removeprefix('img_backbone.'): t for n, t in vovnet.items()}
    torn = dict(list(vovnet.items())[:300])
    for state in (bare, torn | another, {}):
        with pytest.raises(ConfigError, match=r'load_from=vovnet.pth does not fit .*init_cfg'):
            hook.after_load_checkpoint(runner, dict(state_dict=state))
