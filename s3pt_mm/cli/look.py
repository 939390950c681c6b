"""One HTML page that shows what a ViT sees in a folder of images: open it in any browser.

    s3pt-look CHECKPOINT FOLDER --out page.html [--against OTHER]

Components of the patch tokens as colours, patches alike to a clicked one, attention, clusters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from s3pt_mm.cli.images_in import (
    add_arguments,
    find_images,
    image_size,
    load_network,
    normalise,
    open_image,
)
from s3pt_mm.common.errors import ConfigError, DataError, exit_status
from s3pt_mm.reports.look_page import NetworkPage, Photo, to_jpeg, write_page

LARGE_PAGE = 50.0
"""MB above which browsers are slow to open the page."""


def read_folder(
    args: argparse.Namespace,
) -> tuple[list[Path], list[Photo], list, list[str]]:
    """Images that can be read, their pictures and views, and what was left out.

    Raises:
        DataError: There is no image, or none that can be read.
    """
    from s3pt_mm.probes.patch_pictures import draw_crops

    folder = Path(args.folder)
    found = find_images(folder)
    if len(found) > args.max_images:
        chosen = np.linspace(0, len(found) - 1, args.max_images).round().astype(int)
        paths = [found[index] for index in chosen]
        print(f'{len(paths)} of {len(found)} images, spread evenly (--max-images)')
    else:
        paths = found
    good, photos, crops, bad = [], [], [], []
    for index, path in enumerate(track(paths, description='images')):
        try:
            image = open_image(path)
            crop = draw_crops(np.asarray(image), path, index, args.view_size)
        except DataError as error:
            bad.append(str(error))
            continue
        jpeg = to_jpeg(image, args.picture_width)
        views = [to_jpeg(Image.fromarray(view), args.view_size) for view in crop.pixels]
        good.append(path)
        photos.append(Photo(path.relative_to(folder).as_posix(), jpeg, views))
        crops.append(crop)
    for line in bad:
        print(f'left out: {line}', file=sys.stderr)
    if not good:
        raise DataError(folder, f'none of its {len(bad)} images can be read', 'See the lines above')
    return good, photos, crops, bad


@torch.no_grad()
def look(
    source: str, args: argparse.Namespace, paths: Sequence[Path], crops: list
) -> tuple[NetworkPage, str]:
    """What one network says of the images, and a line about it.

    Args:
        source: Its checkpoint.
        args: See :func:`main`.
        paths: Images.
        crops: Their two views.

    Raises:
        ValueError: Image or view size do not fit the patch; more clusters than tokens.
    """
    from s3pt_mm.cli.clusters import parse_setting
    from s3pt_mm.method.clustering import ClusteringConfig
    from s3pt_mm.probes import patch_pictures
    from s3pt_mm.weights.attention import tokens_and_attention

    try:
        _, options = parse_setting(f'look={args.clustering}')
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f'--clustering {error}') from None
    options.pop('depth_completion', None)
    config = ClusteringConfig(**options)
    model = load_network(source, args)
    size, patch = image_size(model, args.image_size)
    tokens, attention, clusters = [], [], []
    for start in track(range(0, len(paths), args.batch_size), description='batches'):
        chunk = slice(start, start + args.batch_size)
        batch = [normalise(open_image(path), size) for path in paths[chunk]]
        found, shares = tokens_and_attention(model, torch.stack(batch).to(args.device))
        tokens += found.half().cpu().unbind()
        attention += list(shares.cpu().numpy())
        settings = dict(patch=patch, first=start, device=args.device)
        clusters += list(patch_pictures.joint_clusters(model, crops[chunk], config, **settings))
    colours = patch_pictures.fit_colours(tokens, args.foreground)
    small = patch_pictures.shrink(tokens, args.dims)
    page = NetworkPage(
        name=source,
        grid=(size[0] // patch, size[1] // patch),
        features=small.values,
        components=[colours.paint(image) for image in tokens],
        explained=colours.explained,
        foreground=args.foreground is not None,
        attention=attention,
        clusters=clusters,
    )
    dims, (rows, columns) = small.values[0].shape[1], page.grid
    line = (
        f'{source}: {rows} x {columns} patches of {size[0]} x {size[1]} pixels; search in {dims} '
        f'of {model.embed_dims} dimensions, a byte each: cosines are off by '
        f'{small.cosine_error[0]:.4f} (99 in 100 by less than {small.cosine_error[1]:.4f}), '
        f'{small.same_nearest:.0%} of the ten nearest patches are the same'
    )
    return page, line


def run(args: argparse.Namespace) -> None:
    """What the arguments say.

    Raises:
        DataError: No image, or none that can be read.
        ValueError: See :func:`look`; ``--out`` is no HTML file, a number is below 1.
    """
    out = Path(args.out)
    if out.suffix not in ('.html', '.htm'):
        raise ValueError(f'--out {out}: name a file ending in .html')
    for name in ('max_images', 'dims', 'batch_size', 'view_size', 'picture_width'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} {getattr(args, name)}: at least 1')
    paths, photos, crops, bad = read_folder(args)
    pages, notes = [], []
    for source in [args.checkpoint, *([args.against] if args.against else [])]:
        page, line = look(source, args, paths, crops)
        pages.append(page)
        notes.append(line)
        print(line)
    if len(pages) > 1:
        notes.append("Colours of components and clusters are each network's own.")
    notes.append(
        f'Clusters: the joint clustering of pre-training ({args.clustering}, without depth) of two '
        f'random views of {args.view_size} pixels; attention: of the class token, last block.'
    )
    if bad:
        notes.append(f'{len(bad)} images could not be read and are left out.')
    title = f'{args.folder}: {len(photos)} images'
    size = write_page(out, title, photos, pages, notes)
    print(f'{out}: {size:.1f} MB, {len(photos)} images' + (f', {len(bad)} left out' if bad else ''))
    if size > LARGE_PAGE:
        print(
            f'warning: above {LARGE_PAGE:.0f} MB browsers are slow; use fewer --max-images or '
            '--dims, a smaller --image-size or --picture-width',
            file=sys.stderr,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Look; 0, or 1 after one line about what is wrong."""
    parser = argparse.ArgumentParser(
        prog='s3pt-look',
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_arguments(parser)
    add = parser.add_argument
    add('--out', required=True, help='the page, .html')
    add('--against', metavar='OTHER', help='another checkpoint, shown beside the first')
    add('--max-images', type=int, default=48, help='spread evenly over the folder')
    add('--dims', type=int, default=128, help='numbers a patch for the search')
    add(
        '--foreground', type=float, metavar='T',
        help='paint only patches whose first component (0 to 1) is above T; -T: below T',
    )  # fmt: skip
    add(
        '--clustering', default='s3pt', metavar='PRESET,KEY=VALUE',
        help='s3pt or cribo, and fields of ClusteringConfig, e.g. s3pt,num_clusters=32',
    )  # fmt: skip
    add('--view-size', type=int, default=224, help='of the views that are clustered, pixels')
    add('--picture-width', type=int, default=640, help='of the photos in the page, pixels')
    args = parser.parse_args(argv)
    return exit_status(lambda: run(args), RuntimeError, ValueError, TypeError)
