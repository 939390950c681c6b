"""The sub-commands of ``s3pt-data`` that read logs: one a format, with shared options."""

from __future__ import annotations

import argparse
from pathlib import Path

from s3pt_mm.data.formats import log_format
from s3pt_mm.data.formats.writing import write_infos


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Options that every format shares, then the format's own."""
    parser.add_argument('root', type=Path, help='the log')
    parser.add_argument(
        '--out-dir', type=Path, required=True, help='of the info files and what is extracted'
    )
    parser.add_argument(
        '--val-sequences', nargs='+', default=[], metavar='NAME', help='drives that go to val'
    )
    parser.add_argument(
        '--val-share', type=float, default=0.0, help='or: the last share of each drive, e.g. 0.2'
    )
    parser.add_argument(
        '--on-error', choices=['raise', 'skip'], default='raise', help='samples with bad files'
    )
    parser.add_argument('--max-failed-share', type=float, default=0.01, help='with skip')
    log_format(name).add_arguments(parser)


def run(args: argparse.Namespace, name: str) -> None:
    """Write the info files; print what they hold and what to type next."""
    written = write_infos(
        log_format(name)(args.root, args),
        name,
        args.out_dir,
        val_sequences=args.val_sequences,
        val_share=args.val_share,
        on_error=args.on_error,
        max_failed_share=args.max_failed_share,
    )
    for split, path in written.items():
        print(f'{split}: {path}')
    first = next(iter(written.values()))
    print(f'Look at it: s3pt-look-at-data {first}')
    print(
        f'Train:      s3pt-train configs/s3pt/vits16_logs.py --cfg-options '
        f'train_dataloader.dataset.data_root={args.out_dir} '
        f'train_dataloader.dataset.ann_file={first.name}'
    )
