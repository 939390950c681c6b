"""Pictures of what pre-training would read: each camera's photo with the LiDAR projected into it.

That is how people find a wrong calibration: edges of depth that do not lie on edges of the photo.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from s3pt_mm.common.errors import DataError, exit_status
from s3pt_mm.common.files import inside
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.data.datasets.open_info import open_info
from s3pt_mm.data.transforms.image import LoadImage
from s3pt_mm.data.transforms.lidar import LoadLidar

MAX_DEPTH = 60.0  # metres: where the colours end


def draw_returns(image: np.ndarray, uvd: np.ndarray, width: int) -> np.ndarray:
    """A photo with LiDAR returns as dots, near ones red, far ones blue, far ones first.

    Args:
        image: (H, W, 3) RGB uint8.
        uvd: (M, 3) pixels of the full-size image and depth in metres.
        width: Of the picture, pixels.

    Returns:
        (h, width, 3) RGB uint8.
    """
    scale = width / image.shape[1]
    height = max(1, round(image.shape[0] * scale))
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if not len(uvd):  # no LiDAR, or none of it in sight
        return picture
    uvd = uvd[np.argsort(-uvd[:, 2])]
    shade = (255 * (1 - uvd[:, 2] / MAX_DEPTH).clip(0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(shade[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
    radius = max(1, width // 500)
    for (u, v, _), colour in zip(uvd * (scale, scale, 1.0), colours, strict=True):
        cv2.circle(picture, (round(u), round(v)), radius, colour.tolist(), -1, cv2.LINE_AA)
    return picture


def look_at(
    dataset: NuScenesImages, out_dir: Path, *, samples: int = 4, width: int = 960
) -> dict[str, list[int]]:
    """Draw some samples, evenly spread over the data set; one JPEG an image.

    Args:
        dataset: Needs no pipeline.
        out_dir: Folder of the pictures, ``<number>_<camera>.jpg``.
        samples: How many images of each camera.
        width: Of a picture, pixels.

    Returns:
        By camera, the number of returns in each drawn image; 0 where there is no LiDAR.
    """
    chosen = [
        (camera, indices[at])
        for camera, indices in dataset.by_camera.items()
        for at in np.unique(np.linspace(0, len(indices) - 1, samples).round().astype(int))
    ]
    steps, counts = (LoadImage(), LoadLidar()), defaultdict(list)
    out_dir.mkdir(parents=True, exist_ok=True)
    for camera, index in track(chosen, description='drawing'):
        results: dict[str, Any] = dataset.get_data_info(index)
        for step in steps:
            results = step.transform(results)
        uvd = results.get('lidar_uvd', np.zeros((0, 3), dtype=np.float32))
        counts[camera].append(len(uvd))
        picture = draw_returns(results['img'].decode(), uvd, width)
        path = inside(out_dir, f'{index:06d}_{camera or "image"}.jpg', dataset.ann_file)
        if not cv2.imwrite(str(path), picture[..., ::-1]):
            raise DataError(path, 'the picture could not be written', 'Check --out-dir')
    return dict(counts)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw; 0, or 1 after one line about bad data."""
    parser = argparse.ArgumentParser(prog='s3pt-look-at-data', description=__doc__.splitlines()[0])
    parser.add_argument('info', type=Path, help='info file')
    parser.add_argument('--root', type=Path, help='data_root; default: looked for')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/look_at_data'))
    parser.add_argument('--cameras', nargs='+', help='default: all')
    parser.add_argument('--samples', type=int, default=4, help='images a camera (%(default)s)')
    parser.add_argument('--width', type=int, default=960, help='of a picture (%(default)s)')
    args = parser.parse_args(argv)

    def run() -> None:
        dataset = open_info(args.info, args.root, cameras=args.cameras)
        counts = look_at(dataset, args.out_dir, samples=args.samples, width=args.width)
        for camera, numbers in counts.items():
            print(f'{camera or "image"}: {min(numbers)} to {max(numbers)} returns an image')
        print(f'Pictures: {args.out_dir}')

    return exit_status(run)
