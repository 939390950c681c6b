"""Images per second and core of a pre-training pipeline, against torchvision's on Pillow images."""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import torch
from PIL import Image, ImageFilter
from torchvision import transforms as T

from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset
from s3pt_mm.data.transforms.views import MultiCropViews


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``tools/dev/benchmark.py data``."""
    from tools.dev.toydrive_data import add_data_arguments

    parser.add_argument('config', nargs='?', default='configs/s3pt/vits16_nuscenes.py')
    parser.add_argument('--images', type=int, default=24, help='a round (default 24)')
    parser.add_argument('--rounds', type=int, default=5, help='default 5')
    parser.add_argument('--gpus', type=int, default=8, help='to be fed (default 8)')
    parser.add_argument(
        '--gpu-rate',
        type=float,
        default=1250.0,
        help='images/s of one GPU; default: an estimate for an H100, see docs/performance.md',
    )
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the config's pipeline, print the figures and return them."""
    from mmengine.config import Config

    from tools.dev.toydrive_data import pretraining_dataset

    with pretraining_dataset(Config.fromfile(args.config), args) as dataset:
        figures = benchmark_pipeline(dataset, images=args.images, rounds=args.rounds)
    figures['cores'] = cores_needed(args.gpus, args.gpu_rate, figures['images_per_second'])
    print(
        f'{args.config}: {figures["images_per_second"]:.1f} images/s a core, torchvision on Pillow '
        f'{figures["torchvision_images_per_second"]:.1f}: {figures["ratio"]:.2f} x (target: 2)'
    )
    print(
        f'{args.gpus} GPUs of {args.gpu_rate:.0f} images/s need {figures["cores"]} cores like this '
        f'one, {math.ceil(figures["cores"] / args.gpus)} workers a rank'
    )
    return figures


def cores_needed(gpus: int, gpu_rate: float, core_rate: float) -> int:
    """Cores that keep ``gpus`` busy, each of which takes ``gpu_rate`` images/s."""
    return math.ceil(gpus * gpu_rate / core_rate)


class PillowBlur:
    """Gaussian blur with a random radius, as DINO's public pipeline calls Pillow."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur one image."""
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.sigma)))


def torchvision_views(views: MultiCropViews) -> list[Callable[[Image.Image], torch.Tensor]]:
    """The same views with torchvision on Pillow images: one transform a view, uint8 tensors out.

    Positions and depths are not computed, and nothing is normalised (this package does that on
    batches).
    """
    pipelines = []
    for size, scale, p in zip(views.sizes, views.scales, views.photometric, strict=True):
        jitter = T.ColorJitter(p.brightness, p.contrast, p.saturation, p.hue)
        steps = [
            T.RandomResizedCrop(
                size, scale, views.ratio, interpolation=T.InterpolationMode.BICUBIC
            ),
            T.RandomHorizontalFlip(views.flip_prob),
            T.RandomApply([jitter], p.jitter_prob),
            T.RandomGrayscale(p.grey_prob),
            T.RandomApply([PillowBlur(p.blur_sigma)], p.blur_prob),
            T.RandomSolarize(p.solarize_threshold, p.solarize_prob),
            T.PILToTensor(),
        ]
        pipelines.append(T.Compose(steps))
    return pipelines


def benchmark_pipeline(
    dataset: PretrainDataset, *, images: int = 24, rounds: int = 5
) -> dict[str, Any]:
    """Measure the dataset's own pipeline against torchvision's on the same files.

    One thread, in this process, the two taking turns image by image; CPU time, so that other work
    on the machine counts as little as possible. Files come from the page cache after the first
    pass, which is not counted.

    Args:
        dataset: with a pipeline that has ``TwoViews`` or ``MultiCropViews``.
        images: images a round; the dataset is repeated if it has fewer.
        rounds: rounds to take the medians over.

    Returns:
        ``images_per_second``, ``torchvision_images_per_second``, ``ratio`` (median of the rounds'
        ratios), ``ratios``, ``images``, ``rounds``.
    """
    views = next(t for t in dataset.pipeline.transforms if isinstance(t, MultiCropViews))
    reference = torchvision_views(views)
    indices = [i % len(dataset) for i in range(images)]
    paths = [dataset.get_data_info(i)['img_path'] for i in indices]

    def ours(k: int) -> None:
        dataset.prepare_data(indices[k])

    def torchvisions(k: int) -> None:
        with Image.open(paths[k]) as file:
            image = file.convert('RGB')
        for pipeline in reference:
            pipeline(image)

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        ours(0), torchvisions(0)
        times: dict[Callable[[int], None], list[float]] = {ours: [], torchvisions: []}
        for _ in range(rounds):
            spent = dict.fromkeys(times, 0.0)
            for k in range(images):
                for run in times:
                    start = time.process_time()
                    run(k)
                    spent[run] += time.process_time() - start
            for run, seconds in spent.items():
                times[run].append(seconds)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    ratios = [b / a for a, b in zip(times[ours], times[torchvisions], strict=True)]
    return {
        'images_per_second': images / statistics.median(times[ours]),
        'torchvision_images_per_second': images / statistics.median(times[torchvisions]),
        'ratio': statistics.median(ratios),
        'ratios': ratios,
        'images': images,
        'rounds': rounds,
    }
