"""What ``s3pt-embed`` and ``s3pt-look`` share: a network, a folder of images, their size."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.files import read_file
from s3pt_mm.data import image_files
from s3pt_mm.data.labelled_images import normalised
from s3pt_mm.data.transforms.image import EncodedImage

DEFAULT_SIZE = (448, 800)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Checkpoint, folder, and how the network reads its images."""
    add = parser.add_argument
    add('checkpoint', help='of this package, DINO, timm, Hugging Face, ...; or the word random')
    add('folder', help='of images; subfolders count')
    add(
        '--image-size', type=int, nargs=2, metavar=('H', 'W'),
        help='that images are resized to; default 448 800, cut to whole patches',
    )  # fmt: skip
    add('--batch-size', type=int, default=16)
    add_network_arguments(parser)
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu')


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """What a file of weights may not tell about its network."""
    add = parser.add_argument
    add('--network', choices=('teacher', 'student'), default='teacher')
    add('--num-heads', type=int, help='attention heads; default: told by the file, or width / 64')
    add('--timm', metavar='NAME', help="timm's name of the network, where weights do not tell it")


def load_network(source: str, args: argparse.Namespace) -> nn.Module:
    """The network of a file, with the arguments' settings, on their device."""
    from s3pt_mm.weights.any_vit import load_tokens

    model = load_tokens(source, network=args.network, num_heads=args.num_heads, timm=args.timm)
    return model.to(args.device)


def image_size(model: nn.Module, wanted: list[int] | None) -> tuple[tuple[int, int], int]:
    """(height, width) that the network reads, and the side of its patches.

    Raises:
        ValueError: A wanted side is no multiple of the patch.
    """
    from s3pt_mm.weights.any_vit import patch_size

    patch = patch_size(model)
    if wanted is None:
        height, width = (side - side % patch for side in DEFAULT_SIZE)
    else:
        height, width = wanted
    if any(side < patch or side % patch for side in (height, width)):
        raise ValueError(f'--image-size {[height, width]}: no multiples of the patch, {patch}')
    return (height, width), patch


def find_images(folder: Path) -> list[Path]:
    """All images below a folder, sorted.

    Raises:
        DataError: There are none.
    """
    paths = image_files.find_images(folder).paths
    if not paths:
        raise DataError(folder, 'holds no image', f'Endings that count: {image_files.SUFFIXES}')
    return [folder / path for path in paths]


def open_image(path: Path) -> Image.Image:
    """An image as pre-training sees it: RGB, upright, 16 bits scaled.

    Raises:
        DataError: The file is no whole image, or there is none (a link that leads nowhere).
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise DataError(
            path, error.strerror or str(error), 'Check the file and its links'
        ) from None
    return Image.fromarray(EncodedImage(data, str(path), upright=True).decode())


def normalise(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """At ``size`` (height, width), (3, h, w) float32, RGB, ImageNet-normalised."""
    return normalised(image.resize(size[::-1], Image.Resampling.BICUBIC))


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """:func:`normalise` of a file; raises as :func:`open_image`."""
    return normalise(open_image(path), size)
