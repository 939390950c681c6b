"""Store a dataset's images once at the size that crops need, its calibration scaled with them.

    s3pt-prepare data/nuscenes/nuscenes_infos_train.parquet \\
        --root data/nuscenes --out data/nuscenes_800
    s3pt-prepare /my/photos --out /my/photos_half

When interrupted, the same command continues. Train with ``data_root`` set to --out and
``max_reduction=1`` in TwoViews or MultiCropViews: the views are those of the originals.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.progress import track

from s3pt_mm.common.errors import DataError, explain
from s3pt_mm.data.prepared_images import PreparedInfos, folder_pairs, prepare_all


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='info file, or a folder of images')
    parser.add_argument('--out', type=Path, required=True, help='folder of the new data')
    parser.add_argument('--root', type=Path, help="data's folder (default: the info file's)")
    parser.add_argument(
        '--reduction', type=int, choices=(1, 2, 4, 8), default=2, help='of both sides (default 2)'
    )
    parser.add_argument('--quality', type=int, default=95, help='of the JPEGs (default 95)')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='processes; 0: this one'
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Write the images, then the info file; returns how many images were written now."""
    infos = None
    if args.source.is_dir():
        pairs = folder_pairs(args.source, args.out)
    else:
        root = args.root or args.source.parent
        infos = PreparedInfos(args.source, root, args.out, args.reduction)
        pairs = infos.pairs
    if not pairs:
        raise DataError(args.source, 'there are no images in it', 'Check the path')

    def progress(results: Iterator[bool]) -> Iterable[bool]:
        return track(results, description='images', total=len(pairs))

    written = prepare_all(
        pairs,
        args.out,
        reduction=args.reduction,
        quality=args.quality,
        workers=args.workers,
        upright=infos is None,
        track=progress,
    )
    print(f'{written} images written, {len(pairs) - written} were there, in {args.out}')
    if infos is not None:
        print(f'info file: {infos.write(args.source.name)}')
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 after one line about what is wrong."""
    try:
        run(parse_arguments(argv))
    except (DataError, OSError) as error:
        print(f'error: {explain(error)}', file=sys.stderr)
        return 1
    return 0
