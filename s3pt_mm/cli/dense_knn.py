"""Dense nearest-neighbour segmentation of a backbone, without training.

s3pt-knn CHECKPOINT --train LIST --val LIST
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from s3pt_mm.hosts import compat

compat.apply()

import torch  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402

from s3pt_mm.common.conv_stem import STEMS  # noqa: E402
from s3pt_mm.common.errors import exit_status  # noqa: E402
from s3pt_mm.common.files import write_json  # noqa: E402
from s3pt_mm.data.class_sets import CLASS_SETS  # noqa: E402
from s3pt_mm.data.labelled_images import LabelledImages  # noqa: E402
from s3pt_mm.probes.evaluation import evaluate_with_controls, knn_head, linear_head  # noqa: E402
from s3pt_mm.reports.tables import to_markdown, write_table  # noqa: E402

TOY_ARCH = dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512)
ARCHITECTURES: dict[str, Any] = {'vitt': TOY_ARCH, 'vits': 'deit-small', 'vitb': 'deit-base'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('checkpoint', help='pre-training checkpoint, or the word "random"')
    parser.add_argument('--arch', choices=ARCHITECTURES, default='vits')
    parser.add_argument('--patch-size', type=int, default=16)
    parser.add_argument('--stem', choices=STEMS, default='patches')
    parser.add_argument('--prefix', default='teacher.backbone.')
    parser.add_argument(
        '--train',
        required=True,
        help='list of s3pt-data nuimages, a Cityscapes folder, or IMAGES=MASKS, two folders',
    )
    parser.add_argument('--val', required=True, help='the same, to be segmented')
    parser.add_argument(
        '--class-set',
        help=f'{", ".join(CLASS_SETS)}, or a class list (docs/own_labels.md); default: nuimages13 '
        'for a list, cityscapes19 for a folder',
    )
    parser.add_argument('--image-size', type=int, nargs=2, default=(448, 800), metavar=('H', 'W'))
    parser.add_argument('--max-images', type=int, help='of each list, spread evenly')
    parser.add_argument(
        '--linear',
        action='store_true',
        help='fit a linear head to convergence instead of searching neighbours',
    )
    parser.add_argument(
        '--views',
        choices=('crops', 'images'),
        default='crops',
        help='random crops, or whole images as published figures have them',
    )
    parser.add_argument(
        '--remove-place',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='subtract the mean feature of each place (published figures: --no-remove-place)',
    )
    parser.add_argument('--crops', type=int, default=4, help='of each image')
    parser.add_argument('-k', type=int, default=30)
    parser.add_argument('--temperature', type=float, default=0.02)
    parser.add_argument('--memory-size', type=int, default=1_000_000, help='patches at most')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--out', help='stem of the .json, .csv and .md files')


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say; prints the figures."""
    from s3pt_mm.weights.frozen import FrozenVisionTransformer

    patch = args.patch_size
    if any(side % patch for side in args.image_size):
        raise SystemExit(f'--image-size {args.image_size} is no multiple of the patch, {patch}.')
    settings = dict(image_size=tuple(args.image_size), max_images=args.max_images)
    settings |= dict(class_set=args.class_set)
    splits = [
        LabelledImages.from_argument(source, split, **settings)
        for source, split in ((args.train, 'train'), (args.val, 'val'))
    ]
    MMLogger.get_instance('dense_knn', log_level='WARNING')  # not a line a parameter
    torch.manual_seed(args.seed)
    backbone = FrozenVisionTransformer(
        arch=ARCHITECTURES[args.arch],
        img_size=tuple(args.image_size),
        patch_size=patch,
        stem=args.stem,
        out_type='featmap',
        init_cfg=dict(type='Pretrained', checkpoint=args.checkpoint, prefix=args.prefix),
    )
    backbone.init_weights()
    backbone.to(args.device)
    start = time.monotonic()
    head = linear_head() if args.linear else knn_head(k=args.k, temperature=args.temperature)
    result = evaluate_with_controls(
        backbone,
        *splits,
        dict(probe=head),
        views=args.views,
        remove_place=args.remove_place,
        crops=args.crops,
        memory_size=args.memory_size,
        seed=args.seed,
        batch_size=args.batch_size,
    )['probe']
    result |= dict(seconds=time.monotonic() - start, settings=vars(args))
    columns = {'network': result, **result['controls']}
    figures = ('mIoU', 'mAcc', 'aAcc')
    rows = [
        dict(name=name, **{column: found['IoU'][name] for column, found in columns.items()})
        for name in result['IoU']
    ] + [
        dict(name=name, **{column: found[name] for column, found in columns.items()})
        for name in figures
    ]
    what = 'Linear head' if args.linear else 'Dense k-NN'
    place = 'without' if args.remove_place else 'with'
    caption = f'{what} of {args.checkpoint}, {args.views} {place} place, IoU in percent'
    headings = dict(name='class', **{column: column for column in columns})
    print(to_markdown(rows, headings, caption=caption, float_format='.2f'))
    print(
        f'{result["gain"]:+.2f} points over the best control, {result["best_control"]}; '
        f'{result["memory_size"]} patches in memory, {result["seconds"]:.0f} s'
    )
    if args.out:
        write_json(f'{args.out}.json', result)
        write_table(rows, headings, args.out, ('md', 'csv'), caption=caption, float_format='.2f')
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0, or 1 after one line about what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    return exit_status(lambda: run(args), ValueError)
