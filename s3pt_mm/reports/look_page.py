"""The page of ``s3pt-look``: pictures and features in one HTML file, which fetches nothing."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s3pt_mm.common.files import write_text


@dataclass(frozen=True)
class Photo:
    """An image of the folder.

    Attributes:
        name: below the folder.
        jpeg: of the photo, small.
        views: JPEGs of its two views.
    """

    name: str
    jpeg: bytes
    views: Sequence[bytes]


@dataclass(frozen=True)
class NetworkPage:
    """What one network says of all images.

    Attributes:
        name: heading.
        grid: (rows, columns) of patches.
        features: int8 (N, m) of each image.
        components: uint8 (N, 3) of each.
        explained: share of the variance in the three components.
        foreground: whether background is black.
        attention: float (heads, N) of each.
        clusters: (2, S * S) of each: tokens of the two views.
    """

    name: str
    grid: tuple[int, int]
    features: Sequence[NDArray[np.int8]]
    components: Sequence[NDArray[np.uint8]]
    explained: float
    foreground: bool
    attention: Sequence[NDArray[np.floating]]
    clusters: Sequence[NDArray[np.integer]]


def to_jpeg(image: Image.Image, width: int, quality: int = 82) -> bytes:
    """A JPEG at most ``width`` pixels wide, in the image's own proportions."""
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, 'JPEG', quality=quality)
    return stream.getvalue()


def write_page(
    path: str | os.PathLike[str],
    title: str,
    photos: Sequence[Photo],
    networks: Sequence[NetworkPage],
    notes: Sequence[str],
) -> float:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file.
        title: Heading.
        photos: The images.
        networks: One or two; all lists as long as ``photos``.
        notes: Lines at the foot.

    Returns:
        Its size in MB (10^6 bytes).
    """
    content = dict(
        title=title,
        notes=list(notes),
        images=[dict(name=photo.name, photo=_address(photo.jpeg)) for photo in photos],
        views=[[_address(view) for view in photo.views] for photo in photos],
        networks=[_network(network) for network in networks],
    )
    # No name of a file may end the script that holds it.
    text = json.dumps(content, separators=(',', ':')).replace('<', '\\u003c')
    here = files('s3pt_mm.reports')
    page = (here / 'look_page.html').read_text(encoding='utf-8')
    script = (here / 'look_page.js').read_text(encoding='utf-8')
    head, _, tail = page.partition('@DATA@')
    write_text(path, head + text + tail.replace('@SCRIPT@', script))
    return Path(path).stat().st_size / 1e6


def _address(jpeg: bytes) -> str:
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode()


def _text(array: NDArray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _network(network: NetworkPage) -> dict[str, Any]:
    peaks = [np.maximum(shares.max(1), 1e-12) for shares in network.attention]
    attention = [
        np.round(shares / peak[:, None] * 255).astype(np.uint8)
        for shares, peak in zip(network.attention, peaks, strict=True)
    ]
    return dict(
        name=network.name,
        grid=list(network.grid),
        dims=network.features[0].shape[1],
        features=[_text(values) for values in network.features],
        components=[_text(values) for values in network.components],
        explained=network.explained,
        foreground=network.foreground,
        heads=len(peaks[0]),
        attention=[_text(values) for values in attention],
        peaks=[[float(f'{value:.4g}') for value in peak] for peak in peaks],
        side=round(network.clusters[0].shape[1] ** 0.5),
        clusters=[_text(labels.astype('<u2')) for labels in network.clusters],
    )
