"""Train from a config of mmpretrain, mmsegmentation or mmdetection3d, or of this package.

s3pt-train CONFIG [--init WEIGHTS] [--resume [CHECKPOINT]] [--cfg-options KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from s3pt_mm.hosts import compat

compat.apply()

from s3pt_mm.common.errors import DataError, explain  # noqa: E402
from s3pt_mm.hosts import launch  # noqa: E402
from s3pt_mm.resume.checkpoint_files import CheckpointError  # noqa: E402
from s3pt_mm.weights.layouts import LayoutError  # noqa: E402


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """OpenMMLab's arguments, with OpenMMLab's meaning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    launch.add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without one, from the newest in the work folder',
    )
    parser.add_argument(
        '--epochs', type=int, metavar='N', help='train so many epochs; every schedule follows'
    )
    parser.add_argument(
        '--init',
        metavar='WEIGHTS',
        help='start the backbone from public weights: DINO, DINOv2, DINOv3, iBOT, CrIBo, MAE, '
        'timm, Hugging Face or torchvision, a file, folder or address (config key: init)',
    )
    parser.add_argument('--amp', action='store_true', help='train in automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the real total batch',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate during training'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    args = parse_arguments(argv)
    try:
        compat.check_versions()
        cfg = launch.load_config(args)
        init = args.init or cfg.get('init')
        cfg.pop('init', None)
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        lines = launch.prepare_training(cfg, args)
        launch.check_data(cfg, 'train_dataloader', args.config)
        launch.check_data(cfg, 'val_dataloader', args.config)
        launch.check_accelerator()
        launch.claim_work_folder(cfg, args.config, training=True)
        if init:
            from s3pt_mm.weights.public import start_from

            start_from(cfg, init)
    except (launch.LaunchError, LayoutError, DataError, OSError, ImportError) as error:
        sys.exit(f's3pt-train: {explain(error)}')
    try:
        runner = launch.build_runner(cfg)
        launch.log_lines(lines)
        launch.train(runner)
    except (CheckpointError, launch.LaunchError, DataError) as error:
        sys.exit(f's3pt-train: {error}')
