"""Evaluate a checkpoint with a config of mmpretrain, mmsegmentation or mmdetection3d, or of this
package.

s3pt-test CONFIG CHECKPOINT [--out FILE_OR_FOLDER] [--show-dir FOLDER] [--cfg-options
...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from s3pt_mm.hosts import compat

compat.apply()

from mmengine.config import Config, ConfigDict  # noqa: E402

from s3pt_mm.common.errors import DataError, explain  # noqa: E402
from s3pt_mm.hosts import launch  # noqa: E402
from s3pt_mm.resume.checkpoint_files import CheckpointError  # noqa: E402


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """OpenMMLab's arguments, with OpenMMLab's meaning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    launch.add_common_arguments(parser)
    parser.add_argument('checkpoint', help='weights to evaluate')
    parser.add_argument(
        '--out',
        help='keep predictions: a .pkl file (all predictions of the run) or, for '
        'segmentation, a folder of one PNG an image',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='paint predictions into this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds a window stays')
    parser.add_argument('--score-thr', type=float, help='detection: lowest score that is painted')
    parser.add_argument(
        '--task', default='multi-view_det', help='detection: kind of picture (mmdet3d)'
    )
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation, by the config's tta_model"
    )
    return parser.parse_args(argv)


def merge_pictures(cfg: Config, args: argparse.Namespace) -> None:
    """Switch the config's visualisation hook on; each library has its own key for the folder.

    Raises:
        LaunchError: the config has no visualisation hook.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise launch.LaunchError(
            f'{args.config}: --show and --show-dir need '
            "default_hooks.visualization, e.g. dict(type='SegVisualizationHook')"
        )
    kind = hook['type'].rsplit('.')[-1]
    painting = {'enable': True} if kind == 'VisualizationHook' else {'draw': True}
    hook.update(painting, show=args.show, wait_time=args.wait_time)
    if 'Det3D' in kind:
        hook['vis_task'] = args.task
    if args.score_thr is not None:
        hook['score_thr'] = args.score_thr
    if args.show_dir and kind == 'SegVisualizationHook':
        cfg.visualizer['save_dir'] = args.show_dir
    elif args.show_dir:
        hook['out_dir' if kind == 'VisualizationHook' else 'test_out_dir'] = args.show_dir


def merge_output(cfg: Config, args: argparse.Namespace) -> None:
    """Keep predictions where ``--out`` says.

    Raises:
        LaunchError: a folder, and evaluators that write none.
    """
    if args.out.endswith(('.pkl', '.pickle')):
        evaluator = cfg.test_evaluator
        evaluators = list(evaluator) if isinstance(evaluator, list | tuple) else [evaluator]
        cfg.test_evaluator = [
            *evaluators,
            dict(type='mmengine.DumpResults', out_file_path=args.out),
        ]
        return
    evaluator = cfg.test_evaluator
    if not isinstance(evaluator, dict) or not evaluator['type'].endswith(
        ('SegmentationMetric', 'IoUMetric', 'CityscapesMetric')
    ):
        raise launch.LaunchError(
            f'--out {args.out}: only segmentation writes a folder; give a file ending in .pkl '
            '(a nuScenes submission: --cfg-options test_evaluator.0.jsonfile_prefix=FOLDER)'
        )
    evaluator['output_dir'] = args.out
    evaluator['keep_results'] = True


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate."""
    args = parse_arguments(argv)
    try:
        compat.check_versions()
        cfg = launch.load_config(args)
        if cfg.get('test_dataloader') is None:
            raise launch.LaunchError(
                f'{args.config}: no test_dataloader; a pre-training config has nothing '
                'to test, evaluate its checkpoint with configs/segmenter or configs/petr'
            )
        if '://' not in args.checkpoint and not Path(args.checkpoint).is_file():
            raise launch.LaunchError(f'{args.checkpoint}: no such checkpoint')
        if args.show or args.show_dir:
            merge_pictures(cfg, args)
        if args.out:
            merge_output(cfg, args)
        if args.tta:
            if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
                raise launch.LaunchError(f'{args.config}: --tta needs tta_model and tta_pipeline')
            cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
            cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        launch.check_data(cfg, 'test_dataloader', args.config)
        launch.check_accelerator()
        lines = launch.prepare_testing(cfg, args)
        launch.claim_work_folder(cfg, args.config, training=False)
    except (launch.LaunchError, ImportError) as error:
        sys.exit(f's3pt-test: {explain(error)}')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    try:
        runner = launch.build_runner(cfg)
        launch.log_lines(lines)
        launch.test(runner)
    except (CheckpointError, launch.LaunchError, DataError) as error:
        sys.exit(f's3pt-test: {error}')
