"""Read a whole pre-training dataset and report missing, torn and odd files.

    python tools/check_data.py --info data/nuscenes/nuscenes_infos_train.pkl --root data/nuscenes \\
        --out work_dirs/check.json
    python tools/check_data.py --folder /path/to/images --out check.csv
    python tools/check_data.py --config configs/s3pt/vits16_nuscenes.py --out check.json

Runs in parallel; when interrupted, the same command continues. Exit status 0: no problem, 1: the
report lists some, 2: the dataset cannot be opened.
"""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Command line; exactly one source."""
    parser = argparse.ArgumentParser(description='check the files of a pre-training dataset')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--info', help='info file of tools/create_data.py nuscenes')
    source.add_argument('--folder', help='folder of images')
    source.add_argument('--config', help='its train_dataloader.dataset is checked')
    parser.add_argument('--root', default='', help='folder of the data, with --info')
    parser.add_argument('--image-sweeps', action='store_true', help='with --info')
    parser.add_argument('--out', required=True, help='report, .json or .csv')
    parser.add_argument('--workers', type=int, default=None, help='default: one a core')
    parser.add_argument('--restart', action='store_true', help='forget an interrupted run')
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Check, print the counts, return the exit status."""
    args = parse_args(argv)
    from mmengine.config import Config
    from mmpretrain.registry import DATASETS

    from s3pt_mm.cli.check_data import check_dataset
    from s3pt_mm.common.errors import DataError
    from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
    from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages

    try:
        if args.info:
            dataset = NuScenesImages(
                ann_file=os.path.abspath(args.info),
                data_root=args.root or os.path.dirname(os.path.abspath(args.info)),
                image_sweeps=args.image_sweeps,
            )
        elif args.folder:
            dataset = ImageFolderDataset(data_root=args.folder)
        else:
            settings = Config.fromfile(args.config).train_dataloader.dataset
            dataset = DATASETS.build({**settings, 'pipeline': [], '_scope_': 'mmpretrain'})
    except DataError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    report = check_dataset(dataset, args.out, workers=args.workers, resume=not args.restart)
    for problem in report['problems'][:20]:
        print(f'{problem["kind"]}: {problem["file"]}: {problem["problem"]}')
    if len(report['problems']) > 20:
        print(f'... and {len(report["problems"]) - 20} more')
    counts = ', '.join(f'{number} {kind}' for kind, number in report['counts'].items())
    print(f'{report["images"]} images: {counts}. Report: {args.out}')
    return 1 if report['problems'] else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
