"""What the clustering finds, measured without training: purity, recall of objects, borders, depth.

s3pt-clusters INFOS --setting k128=s3pt --setting k64=s3pt,num_clusters=64
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3pt_mm.hosts import compat

compat.apply()

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402

from s3pt_mm.cli import cluster_sources  # noqa: E402
from s3pt_mm.cli.dense_knn import ARCHITECTURES  # noqa: E402
from s3pt_mm.common.conv_stem import STEMS  # noqa: E402
from s3pt_mm.common.errors import DataError, exit_status  # noqa: E402
from s3pt_mm.data.labelled_images import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from s3pt_mm.method.backbone import PretrainVisionTransformer  # noqa: E402
from s3pt_mm.probes import clusters  # noqa: E402
from s3pt_mm.probes.token_labels import token_segments  # noqa: E402
from s3pt_mm.reports.cluster_tables import draw_views, mean_and_spread, to_markdown, write_tables  # noqa: E402,E501

PRESETS = dict(cribo=clusters.CRIBO, s3pt=clusters.S3PT)


def parse_setting(text: str) -> tuple[str, dict[str, Any]]:
    """``name=preset,key=value,...``: a preset ('cribo', 's3pt') and fields that replace its own."""
    name, _, rest = text.partition('=')
    preset, *changes = rest.split(',')
    if preset not in PRESETS:
        raise argparse.ArgumentTypeError(f'{text!r}: name=preset with a preset of {list(PRESETS)}')
    options = dict(PRESETS[preset])
    for change in changes:
        key, _, value = change.partition('=')
        default = getattr(clusters.ClusteringConfig, key, None)
        if key == 'depth_completion':
            options[key] = value
        elif default is None:
            raise argparse.ArgumentTypeError(f'{text!r}: the clustering has no option {key!r}')
        elif isinstance(default, bool):
            options[key] = value.lower() in ('1', 'true', 'yes')
        else:
            options[key] = type(default)(value)
    return name, options


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='s3pt-clusters',
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add('data', type=Path, help='info file, list of s3pt-data nuimages, or image folder')
    add('--root', type=Path, help='data_root; default: the folder of the file')
    add('--point-labels', help="class of each point, uint8: '/data/semseg/{stem}.bin'")
    add('--masks', help="of an image folder: '../masks/{path}.png', ids, 255 unlabelled")
    add('--class-set', default='nuimages13', help='of a list of s3pt-data nuimages')
    add('--classes', type=Path, help='JSON: names of the classes by number')
    add('--things', nargs='+', help='classes that have objects; default: all')
    add('--backbone', default='random', help='"random", "colour", or a checkpoint')
    add('--arch', choices=ARCHITECTURES, default='vits')
    add('--patch-size', type=int, default=16)
    add('--stem', choices=STEMS, default='patches')
    add('--prefix', default='teacher.backbone.', help='of the checkpoint')
    add(
        '--setting', type=parse_setting, action='append', dest='settings',
        metavar='NAME=PRESET,KEY=VALUE', help="default: 'cribo=cribo' and 's3pt=s3pt'",
    )  # fmt: skip
    add('--size', type=int, default=224, help='of a view, pixels')
    add('--scale', type=float, nargs=2, default=(0.25, 1.0), help='of a crop')
    add('--max-images', type=int, default=48, help='spread evenly')
    add('--batch-size', type=int, default=16, help='images that share the range of the cost')
    add('--seeds', type=int, nargs='+', default=[0, 1, 2])
    add('--pictures', type=int, default=4, help='images to draw')
    add('--out', type=Path, default=Path('work_dirs/clusters/clusters'), help='without ending')
    return parser


def build_backbone(args: argparse.Namespace, seed: int) -> clusters.Backbone:
    """What makes tokens of views."""
    if args.backbone == 'colour':
        return clusters.colour_and_gradients(args.patch_size)
    torch.manual_seed(seed)
    init_cfg = None
    if args.backbone != 'random':
        init_cfg = dict(type='Pretrained', checkpoint=args.backbone, prefix=args.prefix)
    network = PretrainVisionTransformer(
        arch=ARCHITECTURES[args.arch],
        img_size=args.size,
        patch_size=args.patch_size,
        stem=args.stem,
        out_type='raw',
        init_cfg=init_cfg,
    )
    network.init_weights()
    network.eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return lambda images: network((images - mean) / std)[-1][:, network.num_extra_tokens :]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure; rows by seed and setting, and by class."""
    if not MMLogger.check_instance_created('clusters'):
        MMLogger.get_instance('clusters', log_level='WARNING')  # not a line a parameter
    settings = dict(args.settings or [(name, dict(preset)) for name, preset in PRESETS.items()])
    items, names = cluster_sources.load(args)
    figures: list[dict[str, Any]] = []
    by_class: list[dict[str, Any]] = []
    for seed in args.seeds:
        views = cluster_sources.draw(items, args.size, tuple(args.scale), seed)
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        rows = clusters.evaluate(
            views,
            build_backbone(args, seed),
            settings,
            seed=seed,
            patch_size=args.patch_size,
            batch_size=args.batch_size,
        )
        for row in rows:
            found[row['setting']].append(row)
        for setting, images in found.items():
            recalls = [recall for row in images for recall in row['recalls']]
            sizes = {f'recall_{k}': v for k, v in clusters.recall_by(recalls).items()}
            # An image without labels, depth or borders has no such figure.
            means = pd.DataFrame(images).drop(columns='image').select_dtypes('number').mean()
            figures.append(dict(setting=setting, seed=seed, **means, **sizes))
            shares: dict[str, list[float]] = defaultdict(list)
            for recall in recalls:
                name = names[recall.label] if recall.label < len(names) else str(recall.label)
                shares[name].append(recall.recall)
            values = {name: float(np.mean(shares[name])) for name in sorted(shares)}
            by_class.append(dict(setting=setting, seed=seed, **values))
        if seed == args.seeds[0]:
            _draw(args, views, found)
    written = write_tables(figures, by_class, args.out)
    return dict(figures=figures, classes=by_class, written=written)


def _draw(args: argparse.Namespace, views: list[clusters.Views], found: dict) -> None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    side = args.size // args.patch_size
    for index in np.unique(np.linspace(0, len(views) - 1, args.pictures).round().astype(int)):
        item = views[index]
        segments = token_segments(item.points, item.boxes, item.flips, side)
        maps = [('labels', segments)]
        maps += [(name, rows[index]['clusters']) for name, rows in found.items()]
        path = args.out.with_name(f'{args.out.name}_{index:03d}.jpg')
        if not cv2.imwrite(str(path), draw_views(item.pixels, maps)[..., ::-1]):
            raise DataError(path, 'the picture could not be written', 'Check --out')


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; 0, or 1 after one line about bad data."""
    args = parser().parse_args(argv)

    def measured() -> None:
        start = time.monotonic()
        result = run(args)
        print(to_markdown(mean_and_spread(result['figures'])))
        print(f'{time.monotonic() - start:.0f} s; written:', *result['written'])

    return exit_status(measured)
