"""Figures of finished segmentation runs, and those the S3PT supplement printed.

A run is a JSON file: ``SegmentationMetric``'s ``result_file``, ``result.json`` or ``sweep.json`` of
``s3pt-sweep`` (its best learning rate), or what ``s3pt-knn --out`` writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED_TABLE5: Mapping[str, Mapping[str, float]] = {
    'S/14': {
        'car': 68.57, 'truck': 36.10, 'trailer': 33.43, 'bus': 42.59,
        'construction vehicle': 26.21, 'bicycle': 12.47, 'motorcycle': 48.18,
        'pedestrian': 23.41, 'traffic cone': 33.54, 'barrier': 65.82, 'overall': 50.97,
    },
    'S/16': {
        'car': 68.47, 'truck': 41.52, 'trailer': 30.13, 'bus': 34.90,
        'construction vehicle': 14.55, 'bicycle': 9.33, 'motorcycle': 47.09,
        'pedestrian': 22.10, 'traffic cone': 35.96, 'barrier': 66.82, 'overall': 50.04,
    },
    'S/32': {
        'car': 63.59, 'truck': 30.72, 'trailer': 24.83, 'bus': 32.12,
        'construction vehicle': 15.37, 'bicycle': 10.50, 'motorcycle': 42.65,
        'pedestrian': 14.75, 'traffic cone': 25.83, 'barrier': 61.74, 'overall': 46.04,
    },
}  # fmt: skip
"""Supplement, Table 5: nuImages IoU in percent, Mask Transformer, S3PT at 100 epochs."""


@dataclass(frozen=True)
class SegmentationResult:
    """Figures of one run, in percent; NaN where a class has no pixel.

    Attributes:
        name: Name in tables and figures.
        iou: IoU by class.
        miou: Mean over classes.
    """

    name: str
    iou: Mapping[str, float]
    miou: float


def read_result(name: str, path: str | Path) -> SegmentationResult:
    """Read a run's JSON file, or the last evaluation in a log of one JSON object a line.

    Args:
        name: Name in tables and figures.
        path: The file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It holds no segmentation figures.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'Result file {path} of run {name!r} does not exist.')
    content = _last_evaluation(path)
    per_class = content.get('IoU') or {
        key.removeprefix('IoU/'): value for key, value in content.items() if key.startswith('IoU/')
    }
    if not per_class or content.get('mIoU') is None:
        raise ValueError(
            f'{path} holds no mIoU and IoU/<class>; give the result_file of SegmentationMetric, a '
            "sweep.json, a run's vis_data/scalars.json or a dense k-NN result."
        )
    return SegmentationResult(
        name, {key: _number(value) for key, value in per_class.items()}, content['mIoU']
    )


def _last_evaluation(path: Path) -> Mapping[str, Any]:
    text = path.read_text()
    try:
        documents = [json.loads(text)]
    except json.JSONDecodeError as error:
        try:
            documents = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError:
            raise ValueError(f'{path} is no JSON: {error}') from error
    for document in reversed(documents):
        if isinstance(document, dict) and document.keys() & {'mIoU', 'best'}:
            return document.get('best', document)
    return {}


def parse_runs(arguments: Sequence[str]) -> list[SegmentationResult]:
    """Read ``NAME=FILE`` arguments of a command line, in order."""
    runs = []
    for argument in arguments:
        name, _, path = argument.partition('=')
        if not path:
            raise ValueError(f'--run takes NAME=FILE, not {argument!r}.')
        runs.append(read_result(name, path))
    classes = [list(run.iou) for run in runs]
    if any(names != classes[0] for names in classes):
        raise ValueError(
            'Runs have different classes: '
            + '; '.join(f'{run.name}: {list(run.iou)}' for run in runs)
        )
    return runs


def class_rows(runs: Sequence[SegmentationResult]) -> list[dict[str, Any]]:
    """One row a class, one column a run, then mIoU."""
    rows = [{'class': name, **{run.name: run.iou[name] for run in runs}} for name in runs[0].iou]
    return [*rows, {'class': 'mIoU', **{run.name: run.miou for run in runs}}]


def table5_rows(runs: Sequence[SegmentationResult]) -> list[dict[str, Any]]:
    """Supplement's Table 5 with our runs before the published columns.

    The ten detection classes in the supplement's order; ``overall`` is the mIoU over all classes.
    """
    order = list(next(iter(PUBLISHED_TABLE5.values())))
    rows = []
    for name in order:
        ours = {r.name: r.miou if name == 'overall' else r.iou.get(name, math.nan) for r in runs}
        theirs = {f'published {patch}': row[name] for patch, row in PUBLISHED_TABLE5.items()}
        rows.append({'class': name, **ours, **theirs})
    return rows


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
