"""Supplement's Fig. 3: rows of images; columns input, ground truth and one a model; a legend.

Predictions are the PNG folders that ``s3pt-test --out FOLDER`` keeps (class indices).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from PIL import Image

from s3pt_mm.data.class_sets import IGNORE
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.reports.palette import IGNORED_COLOUR, colourise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``s3pt-report qualitative``."""
    parser.add_argument('--pred', nargs='+', required=True, metavar='NAME=FOLDER')
    parser.add_argument(
        '--data', required=True, help='nuimages_val.json, Cityscapes folder, IMAGES=MASKS'
    )
    parser.add_argument('--split', default='val', help='of a Cityscapes folder')
    parser.add_argument('--class-set', help='name, or class list; default: of the data set')
    parser.add_argument('--images', nargs='+', help='file names; default: spread over the list')
    parser.add_argument('--rows', type=int, default=4)
    parser.add_argument('--out', required=True, help='stem of .pdf and .png')


def run(args: argparse.Namespace) -> None:
    """Entry point of ``s3pt-report qualitative``."""
    images = LabelledImages.from_argument(
        args.data,
        args.split,
        class_set=args.class_set,
        image_size=(16, 16),
        max_images=None if args.images else args.rows,
    )
    folders = {}
    for argument in args.pred:
        name, _, folder = argument.partition('=')
        if not folder:
            raise ValueError(f'--pred takes NAME=FOLDER, not {argument!r}.')
        folders[name] = folder
    if args.images:
        names = {Path(path).name: index for index, (path, _) in enumerate(images.pairs)}
        missing = [name for name in args.images if name not in names]
        if missing:
            raise ValueError(f'{args.data} has no images {missing}.')
        images.pairs = [images.pairs[names[name]] for name in args.images]
    for path in draw_qualitative(images, folders, args.out):
        print(path)


def read_prediction(folder: str | Path, img_path: str | Path) -> np.ndarray:
    """The prediction of one image, (H, W) class indices.

    Raises:
        FileNotFoundError: The folder has none for this image.
    """
    path = Path(folder) / f'{Path(img_path).stem}.png'
    if not path.is_file():
        raise FileNotFoundError(
            f'No prediction {path} for image {img_path}; keep predictions with '
            '`s3pt-test CONFIG CHECKPOINT --out FOLDER`.'
        )
    with Image.open(path) as file:
        return np.asarray(file)


def draw_qualitative(
    images: LabelledImages,
    folders: Mapping[str, str | Path],
    stem: str | Path,
    *,
    width: float = 2.4,
) -> list[Path]:
    """Draw the figure.

    Args:
        images: One row each.
        folders: Prediction folder by model name, in the order of the columns.
        stem: Path without ending.
        width: Of a picture, in inches.

    Returns:
        PDF and PNG.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    class_set = images.class_set
    headings = ('input', 'ground truth', *folders)
    seen: set[int] = set()
    rows: list[Sequence[np.ndarray]] = []
    for index, (img_path, _) in enumerate(images.pairs):
        labels = images[index].label_map
        with Image.open(img_path) as file:
            photo = np.asarray(file.convert('RGB'))
        predictions = [read_prediction(folder, img_path) for folder in folders.values()]
        for name, prediction in zip(folders, predictions, strict=True):
            if prediction.shape != labels.shape:
                raise ValueError(
                    f'Prediction of {name} for {img_path} is {prediction.shape}, its ground truth '
                    f'{labels.shape}.'
                )
        for part in (labels, *predictions):
            seen.update(np.unique(part).tolist())
        rows.append((photo, *(colourise(part, class_set) for part in (labels, *predictions))))
    height = width * rows[0][0].shape[0] / rows[0][0].shape[1]
    gap, heading, columns = 0.05, 0.25, len(headings)  # inches
    total_width = columns * width + (columns - 1) * gap
    entries = len(seen)
    per_line = max(1, min(entries, int(total_width / 1.35)))
    legend_height = 0.1 + 0.2 * -(-entries // per_line)
    pictures_height = len(rows) * height + (len(rows) - 1) * gap
    total_height = heading + pictures_height + legend_height
    with plt.rc_context({'font.size': 9, 'pdf.fonttype': 42, 'font.family': 'DejaVu Sans'}):
        figure, grid = plt.subplots(
            len(rows),
            columns,
            figsize=(total_width, total_height),
            squeeze=False,
            gridspec_kw=dict(
                left=0,
                right=1,
                top=1 - heading / total_height,
                bottom=legend_height / total_height,
                wspace=gap / width,
                hspace=gap / height,
            ),
        )
        for axes_row, pictures in zip(grid, rows, strict=True):
            for axes, picture in zip(axes_row, pictures, strict=True):
                axes.imshow(_shrunk(picture), interpolation='nearest')
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
        for axes, title in zip(grid[0], headings, strict=True):
            axes.set_title(title, fontsize=9)
        legend = [
            Patch(color=_as_floats(class_set.palette[label]), label=class_set.classes[label])
            for label in sorted(seen - {IGNORE})
        ]
        if IGNORE in seen:
            legend.append(Patch(color=_as_floats(IGNORED_COLOUR), label='ignored'))
        figure.legend(
            handles=legend, loc='upper center', ncols=per_line, frameon=False, fontsize=8,
            bbox_to_anchor=(0.5, (legend_height - 0.02) / total_height), borderaxespad=0,
            handlelength=1.4, columnspacing=1.2,
        )  # fmt: skip
        files = [stem.with_name(f'{stem.name}.{ending}') for ending in ('pdf', 'png')]
        for file in files:
            figure.savefig(file, bbox_inches='tight', pad_inches=0.04, dpi=150)
        plt.close(figure)
    return files


def _shrunk(picture: np.ndarray, longest: int = 640) -> np.ndarray:
    """Every n-th pixel, so that a figure of many photos stays small; labels stay pure colours."""
    step = max(1, -(-max(picture.shape[:2]) // longest))
    return picture[::step, ::step]


def _as_floats(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
