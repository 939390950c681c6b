"""What is looked at before a run: data, folder, machine; each fault is one line with its remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.common.files import write_json
from s3pt_mm.common.models import differences, shortened, unwrap, weights_of
from s3pt_mm.common.workers import usable_cpus

RECORD = 's3pt_run.json'
"""In a work folder: which config's run it holds."""

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_SHARED_MEMORY = Path('/dev/shm')
_LEAST_SHARED_MEMORY = 16 * 2**20


# ------------------------------------------------------------------------------------------- data
def datasets(cfg: Any) -> Iterator[Any]:
    """The data sets inside wrappers (repeat, concatenate, ...)."""
    if isinstance(cfg, Sequence) and not isinstance(cfg, str):
        for item in cfg:
            yield from datasets(item)
    elif isinstance(cfg, dict):
        inner = [cfg[key] for key in ('dataset', 'datasets') if key in cfg]
        if inner:
            yield from datasets(inner)
        else:
            yield cfg


def check_data(cfg: Config, loader: str, config_file: str) -> None:
    """Refuse a data folder or info file that does not exist, before anything is built.

    Args:
        cfg: the merged config.
        loader: ``train_dataloader``, ``val_dataloader`` or ``test_dataloader``; absent is fine.
        config_file: for the message.

    Raises:
        ConfigError: names config, key, path and remedy.
    """
    section = cfg.get(loader)
    _check_mixture((section or {}).get('dataset'), f'{config_file}: {loader}.dataset')
    for dataset in datasets(section.get('dataset') if section else None):
        root, annotations = dataset.get('data_root'), dataset.get('ann_file')
        if root and '://' in root:
            continue  # a remote store: mmengine's file backends know it
        remedy = (
            f'create it with s3pt-data or s3pt-toydrive (docs/data.md), '
            f'or point to yours with --cfg-options {loader}.dataset.'
        )
        if root and not Path(root).expanduser().is_dir():
            raise ConfigError(
                f'{config_file}: {loader}.dataset.data_root={root} does not exist; '
                f'{remedy}data_root=...'
            )
        if isinstance(annotations, str) and annotations:
            is_info = Path(annotations).suffix in ('.parquet', '.pkl', '.json')
            if is_info and str(dataset.get('type')).endswith('ImageFolderDataset'):
                raise ConfigError(
                    f'{config_file}: {loader}.dataset.ann_file={annotations}: an image folder has '
                    'no info file, only a list of paths; leave it out, or set '
                    'dataset.type=NuScenesImages'
                )
            path = Path(root or '', annotations).expanduser()
            if not path.is_file() and not Path(annotations).is_file():
                raise ConfigError(
                    f'{config_file}: {loader}.dataset.ann_file={annotations} was not found '
                    f'(looked for {path}); {remedy}ann_file=...'
                )


def _check_mixture(dataset: Any, place: str) -> None:
    """Joined data sets are of one kind: their samples have to fit into one batch."""
    kinds = sorted({str(one.get('type')) for one in datasets(dataset)}) if dataset else []
    if {'ImageFolderDataset', 'NuScenesImages'} <= {kind.rsplit('.')[-1] for kind in kinds}:
        raise ConfigError(
            f'{place} joins {" and ".join(kinds)}, whose samples differ: give the folder an info '
            'file (s3pt-data folder) and join two NuScenesImages'
        )


def fit_loaders(cfg: Config, given: Mapping[str, Any], ranks: int = 1) -> list[str]:
    """Make the loaders' workers fit: none is a number too, and no more than there are CPUs.

    Args:
        cfg: edited in place.
        given: options of the command line; a number of workers that stands there is kept.
        ranks: processes of this machine that share its CPUs.

    Returns:
        Lines to log.

    Raises:
        ConfigError: workers, and shared memory too small for one batch.
    """
    lines, most, busy = [], max(1, usable_cpus() // ranks), 0
    for name in _LOADERS:
        loader = cfg.get(name)
        if not loader:
            continue
        if loader.get('num_workers', 0) > most and f'{name}.num_workers' not in given:
            lines.append(f'{name}: {most} workers in place of {loader.num_workers}: so many CPUs.')
            loader.num_workers = most
        if not loader.get('num_workers'):
            loader.persistent_workers = False  # torch refuses it, and the factor, without workers
            loader.pop('prefetch_factor', None)
        busy += loader.get('num_workers', 0)
    if busy and _SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(_SHARED_MEMORY).total
        if size < _LEAST_SHARED_MEMORY:
            raise ConfigError(
                f'{_SHARED_MEMORY} has {size / 1024:.0f} kB, and data workers hand their batches '
                'over in it: start the container with --shm-size=8g (or --ipc=host), or set '
                'train_dataloader.num_workers=0 (val_ and test_dataloader too)'
            )
    return lines


# ----------------------------------------------------------------------------------------- folder
def config_name(config_file: str | os.PathLike[str]) -> str:
    """A config's path below ``configs/`` without its ending; elsewhere its name alone."""
    parts = PurePath(os.path.abspath(config_file)).with_suffix('').parts
    if 'configs' in parts[:-1]:
        return '/'.join(parts[len(parts) - parts[::-1].index('configs') :])
    return parts[-1]


def claim_work_folder(cfg: Config, config_file: str, *, training: bool) -> None:
    """See that the work folder can be written to and holds no other config's run.

    Args:
        cfg: with ``work_dir``.
        config_file: what is going to run.
        training: a test writes logs only, so it may use any folder.

    Raises:
        ConfigError: names the folder, what lies there and the remedy.
    """
    folder = Path(cfg.work_dir)
    remedy = 'choose another place with --work-dir'
    blocking = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    if not blocking.is_dir():
        raise ConfigError(f'work folder {folder}: {blocking} is a file; {remedy}')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f'work folder {folder}: {error.strerror}; {remedy}') from error
    if not training:
        return
    here = dict(config=config_name(config_file), model=str((cfg.get('model') or {}).get('type')))
    there = _holder(folder, here['config'])
    if there and any(there.get(key, here[key]) != here[key] for key in here):
        raise ConfigError(
            f'work folder {folder} holds a run of {there["config"]} ({there.get("model", "?")}), '
            f'not of {here["config"]} ({here["model"]}): {remedy}, or continue that run with its '
            'own config and --resume'
        )
    if get_rank() == 0 and os.environ.get('RANK', '0') == '0':
        write_json(folder / RECORD, here)


def _holder(folder: Path, name: str) -> dict[str, str] | None:
    """Whose run a folder holds; from the config that mmengine left where there is no record.

    Raises:
        ConfigError: The record is damaged.
    """
    record = folder / RECORD
    if record.is_file():
        try:  # as data: mmengine's reader would follow `_base_` and `custom_imports`
            there = json.loads(record.read_text(encoding='utf-8'))
        except (OSError, ValueError, RecursionError):
            there = None
        if not isinstance(there, dict) or not isinstance(there.get('config'), str):
            raise ConfigError(f'{record} is damaged: remove it if the run in {folder} is yours')
        return there
    if not (folder / 'last_checkpoint').is_file():
        return None
    configs = [path.stem for path in folder.glob('*.py')]
    return None if not configs or name.rsplit('/', 1)[-1] in configs else dict(config=configs[0])


# ---------------------------------------------------------------------------------------- machine
def check_accelerator() -> None:
    """Refuse to train on the CPU beside an NVIDIA GPU that torch cannot use.

    ``CUDA_VISIBLE_DEVICES=`` (empty, or -1) says that the CPU is meant.

    Raises:
        ConfigError: driver and torch do not fit, with both versions and the remedy.
    """
    if torch.cuda.is_available() or os.environ.get('CUDA_VISIBLE_DEVICES', 'all') in ('', '-1'):
        return
    query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return  # no GPU, or none that answers
    gpu = found.stdout.strip().splitlines()[:1]
    if not gpu:
        return
    cuda = torch.version.cuda
    remedy = (
        f'torch {torch.__version__} needs a driver for CUDA {cuda}: update the driver, or install '
        'a torch for an older CUDA (https://pytorch.org/get-started/previous-versions)'
        if cuda
        else f'torch {torch.__version__} is built for the CPU alone: install one with CUDA'
    )
    raise ConfigError(
        f'this machine has an NVIDIA GPU ({gpu[0]}) that torch cannot use. {remedy}. To train on '
        'the CPU on purpose: CUDA_VISIBLE_DEVICES=-1'
    )


def limit_threads(ranks: int = 1) -> None:
    """No more torch threads than this process may use CPUs; ``OMP_NUM_THREADS`` wins."""
    most = max(1, usable_cpus() // ranks)
    if 'OMP_NUM_THREADS' not in os.environ and torch.get_num_threads() > most:
        torch.set_num_threads(most)


# ------------------------------------------------------------------------------------- checkpoint
class WholeModelHook(Hook):
    """A test needs every weight of its model from the checkpoint; mmengine warns and goes on."""

    priority = 'LOWEST'  # hosts' own checks say more about their models

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes.

        Raises:
            ConfigError: names the file, what it lacks and what it is likely to be.
        """
        theirs = weights_of(checkpoint)
        model = unwrap(runner.model)
        own = model.state_dict()
        found = differences(own, {name: theirs[name] for name in own if name in theirs})
        if not found:
            return
        kind = (
            'It is a pre-training checkpoint: train the probe on it first '
            '(--cfg-options model.backbone.init_cfg.checkpoint=..., detection: img_backbone)'
            if any(name.startswith('teacher.') for name in theirs)
            else 'Test it with the config that it was trained with'
        )
        raise ConfigError(
            f'{runner._load_from} does not fit {type(model).__name__}: {shortened(found)}. {kind}.'
        )


class StartingWeightsHook(Hook):
    """``load_from`` of a training: mmengine warns of names that do not fit, and starts anew."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare names and shapes; a part of the model (a backbone, all but a head) may be there.

        Raises:
            ConfigError: fewer than half of the file's weights fit, and they fill no part of the
                model.
        """
        theirs = weights_of(checkpoint)
        model = unwrap(runner.model)
        own = model.state_dict()
        fitting = {n for n in theirs if n in own and theirs[n].shape == own[n].shape}
        parts = {name.partition('.')[0] for name in fitting}
        missing = {name.partition('.')[0] for name in own.keys() - fitting}
        if 2 * len(fitting) < len(theirs) and not parts - missing or not fitting:
            raise ConfigError(
                f'load_from={runner._load_from} does not fit {type(model).__name__}: '
                f'{len(fitting)} of its {len(theirs)} entries have a name and shape of the model. '
                'Weights of a backbone, own or public: pre-training takes s3pt-train --init FILE, '
                'a probe model.backbone.init_cfg.checkpoint (detection: img_backbone)'
            )
