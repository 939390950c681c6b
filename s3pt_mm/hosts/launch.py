"""What ``s3pt-train`` and ``s3pt-test`` share: config, arguments, checks, runner."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from s3pt_mm.common.errors import ConfigError as LaunchError
from s3pt_mm.common.shipped import shipped
from s3pt_mm.hosts.arguments import check_arguments
from s3pt_mm.hosts.checks import (
    StartingWeightsHook,
    WholeModelHook,
    check_accelerator,
    check_data,
    claim_work_folder,
    config_name,
    fit_loaders,
    limit_threads,
)
from s3pt_mm.hosts.cpu_ranks import prepare_cpu_ranks
from s3pt_mm.hosts.options import merge_options, read_options
from s3pt_mm.hosts.precision import resolve_precision, set_float32_products
from s3pt_mm.hosts.run_length import follow_length, set_epochs
from s3pt_mm.hosts.scale_lr import scale_learning_rate
from s3pt_mm.resume.checkpoint_files import CheckpointError, newest_whole

_WORLD_SIZE = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add OpenMMLab's arguments that training and testing share."""
    parser.add_argument('config', help='config file, of any of the three libraries')
    parser.add_argument(
        '--work-dir', help='folder of logs and weights; default work_dirs/<path below configs/>'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override config values, e.g. train_dataloader.batch_size=2 (docs/configs.md)',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', *_WORLD_SIZE],
        default='none',
        help='how the processes of a distributed run were started',
    )
    # torchrun sets LOCAL_RANK; torch.distributed.launch passes the argument instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file, merge what both tools accept, and compare names with signatures.

    A name that is no file may be one of the shipped configs: ``configs/s3pt/vits16_nuscenes.py``,
    with or without ``configs/``.

    Raises:
        LaunchError: the file does not exist, or a key means nothing to what would read it.
    """
    if not Path(args.config).is_file():
        configs = shipped('configs')
        below = Path(args.config.removeprefix('configs/'))
        if below.is_absolute() or not (configs / below).is_file():
            raise LaunchError(f'{args.config}: no such config file; the shipped ones: {configs}')
        args.config = str(configs / below)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    given = merge_options(cfg, args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', config_name(args.config))
    check_arguments(cfg, given)
    return cfg


def world_size(launcher: str) -> int:
    """Number of ranks, known before the process group exists.

    Raises:
        LaunchError: the launcher's variable is not set.
    """
    if launcher == 'none':
        return get_world_size()
    variable = _WORLD_SIZE[launcher]
    if variable not in os.environ:
        raise LaunchError(
            f'--launcher {launcher} needs the variable {variable}: start the processes '
            'with srun, or with torchrun --nproc-per-node GPUS --no-python s3pt-train CONFIG'
        )
    return int(os.environ[variable])


def prepare_training(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Merge the arguments of ``s3pt-train``, scale the rate, settle the precision.

    Returns:
        Lines to log once the runner has its logger.
    """
    if args.amp and cfg.optim_wrapper.get('type', 'OptimWrapper') in (
        'OptimWrapper',
        'AmpOptimWrapper',
    ):
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif args.amp:
        raise LaunchError(
            f'{args.config}: --amp needs optim_wrapper.type OptimWrapper and it is '
            f'{cfg.optim_wrapper.type}'
        )
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        if cfg.load_from and '://' not in cfg.load_from and not Path(cfg.load_from).is_file():
            raise LaunchError(
                f'--resume {args.resume}: no such checkpoint; --resume alone takes the '
                f'newest whole one in {cfg.work_dir}'
            )
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise LaunchError(f'{args.config}: --auto-scale-lr needs auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    given = set_epochs(cfg, args.epochs, read_options(args.cfg_options, cfg))
    lines = [
        follow_length(cfg, given),
        *fit_loaders(cfg, given, ranks_here(args.launcher)),
        scale_learning_rate(cfg, world_size(args.launcher)),
        resolve_precision(cfg.optim_wrapper),
    ]
    return [line for line in lines if line]


def prepare_testing(cfg: Config, args: argparse.Namespace) -> list[str]:
    """What a test shares with training: the loaders' workers. Returns lines to log."""
    return fit_loaders(cfg, read_options(args.cfg_options, cfg), ranks_here(args.launcher))


def build_runner(cfg: Config) -> Runner:
    """Build mmengine's runner, or the one that ``runner_type`` names.

    Raises:
        CheckpointError: The disk is full; the message names the last good checkpoint.
    """
    limit_threads(ranks_here(cfg.get('launcher', 'none')))
    prepare_cpu_ranks(cfg)
    set_float32_products(cfg)
    with _explained(cfg.work_dir):
        return Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)


def ranks_here(launcher: str) -> int:
    """Ranks of this machine, which share its CPUs."""
    if launcher == 'none':
        return 1
    names = ('LOCAL_WORLD_SIZE', 'SLURM_NTASKS_PER_NODE', 'OMPI_COMM_WORLD_LOCAL_SIZE')
    return max(int(os.environ.get(name) or 1) for name in names)


def test(runner: Runner) -> None:
    """Evaluate a checkpoint that has every weight of the model.

    Raises:
        LaunchError: it has not, or a data worker met a bad file.
        CheckpointError: The disk is full.
    """
    runner.register_hook(WholeModelHook())
    with _explained(runner.work_dir):
        runner.test()


def train(runner: Runner) -> None:
    """Train; a full disk ends the run with the way on, whoever met it first.

    ``SafeCheckpointHook`` explains its own failures. The log and TensorBoard write too, and more
    often.

    Raises:
        CheckpointError: The disk is full; the message names the last good checkpoint.
        LaunchError: ``load_from`` names the weights of another model, or a data worker met a bad
            file.
    """
    if getattr(runner, '_load_from', None) and not runner._resume:
        runner.register_hook(StartingWeightsHook())
    with _explained(runner.work_dir):
        runner.train()


_OF_A_WORKER = re.compile(r'Caught .* in DataLoader worker .*^s3pt_mm\.[\w.]+: (.+)', re.M | re.S)


@contextlib.contextmanager
def _explained(work_dir: str) -> Iterator[None]:
    """A full disk, and what a data worker said of a file, in one line each."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        said = _OF_A_WORKER.search(str(error))
        if said is None:
            raise
        raise LaunchError(' '.join(said[1].split())) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        whole = newest_whole(Path(work_dir))
        good = f'The last good checkpoint is {whole}' if whole else 'There is no checkpoint yet'
        place = error.filename or f'to {work_dir}'
        raise CheckpointError(
            f'Writing {place} failed: {error.strerror}. {good}. '
            'Make room, then continue with --resume.'
        ) from error


def log_lines(lines: Sequence[str]) -> None:
    """Write lines to the current run's log, once and not on every rank."""
    for line in lines:
        print_log(line, logger='current')


__all__ = [
    'LaunchError',
    'add_common_arguments',
    'build_runner',
    'check_accelerator',
    'check_data',
    'claim_work_folder',
    'load_config',
    'log_lines',
    'prepare_testing',
    'prepare_training',
    'ranks_here',
    'test',
    'train',
    'world_size',
]
