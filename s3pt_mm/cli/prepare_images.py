"""Store a dataset's images once at the size that crops need, its calibration scaled with them.

    s3pt-prepare data/nuscenes/nuscenes_infos_train.parquet \\
        --root data/nuscenes --out data/nuscenes_800
    s3pt-prepare /my/photos --out /my/photos_half
    s3pt-prepare /my/photos --out /my/shards --shards 1000 --reduction 1

When interrupted, the same command continues. Train with ``data_root`` set to --out and
``max_reduction=1`` in TwoViews or MultiCropViews: the views are those of the originals.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from s3pt_mm.common.errors import DataError, exit_status
from s3pt_mm.common.workers import usable_cpus
from s3pt_mm.data.prepared_images import PreparedInfos, folder_pairs, prepare_all
from s3pt_mm.data.shard_writing import (
    ShardedInfos,
    index_existing,
    index_of_images,
    write_shards,
)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='info file, or a folder of images')
    parser.add_argument('--out', type=Path, help='folder of the new data')
    parser.add_argument('--root', type=Path, help="data's folder (default: the info file's)")
    parser.add_argument(
        '--reduction',
        type=int,
        choices=(1, 2, 4, 8),
        default=2,
        help="of both sides (default 2); 1 keeps the files' own bytes",
    )
    parser.add_argument(
        '--shards', type=int, metavar='N', help='write tar files of N files each (WebDataset)'
    )
    parser.add_argument(
        '--index',
        action='store_true',
        help='SOURCE is a folder of tar files: write only the info file of their images into it',
    )
    parser.add_argument('--quality', type=int, default=95, help='of the JPEGs (default 95)')
    parser.add_argument(
        '--workers',
        type=int,
        default=usable_cpus(),
        help='processes, default one a core that this process may use; 0: this one',
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Write the images or shards, then the info file."""
    if args.index:
        print(f'info file: {index_existing(args.source)}')
        return
    if args.out is None:
        raise DataError(args.source, 'there is no folder to write to', 'Name one with --out')
    infos = None
    if args.source.is_dir():
        pairs = folder_pairs(args.source, args.out, args.reduction)
    else:
        root = args.root or args.source.parent
        infos = PreparedInfos(args.source, root, args.out, args.reduction)
        pairs = infos.pairs
    if not pairs:
        raise DataError(args.source, 'there are no images in it', 'Check the path')
    settings = dict(reduction=args.reduction, quality=args.quality, upright=infos is None)
    if args.shards:
        _run_shards(args, pairs, infos, settings)
        return

    def progress(results: Iterator[bool]) -> Iterable[bool]:
        return track(results, description='images', total=len(pairs))

    written = prepare_all(pairs, args.out, **settings, workers=args.workers, track=progress)
    print(f'{written} images written, {len(pairs) - written} were there, in {args.out}')
    if infos is not None:
        print(f'info file: {infos.write(args.source.name)}')


def _run_shards(
    args: argparse.Namespace,
    pairs: list[tuple[str, str]],
    infos: PreparedInfos | None,
    settings: dict[str, Any],
) -> None:
    sharded = None if infos is None else ShardedInfos(infos)
    below = [(os.path.relpath(target, args.out), source) for source, target in pairs]
    members = below if sharded is None else sharded.members

    def progress(results: Iterator[None]) -> Iterable[None]:
        total = -(-len(members) // args.shards)
        return track(results, description='shards', total=total)

    places = write_shards(
        members,
        args.out,
        per_shard=args.shards,
        workers=args.workers,
        settings=settings,
        track=progress,
    )
    if sharded is None:
        index = index_of_images(args.out, places)
    else:
        index = sharded.write(args.source.name, places)
    print(f'{len(members)} files in {len({shard for shard, _, _ in places.values()})} shards')
    print(f'info file: {index}')


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 after one line about what is wrong."""
    args = parse_arguments(argv)
    return exit_status(lambda: run(args))
