"""What an adapter of a log format hands over: samples of images and sweeps, with calibration."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from s3pt_mm.common.errors import DataError

T = TypeVar('T', Path, str)


@dataclass
class CameraImage:
    """One photo and the pinhole (with its lens, if any) that took it.

    Attributes:
        path: The file; None where ``encoded`` makes it.
        encoded: Returns the bytes of a JPEG, PNG, ... that lies inside a container (bag, Parquet,
            video); ``writing`` gives it a file of its own.
        size: (width, height) in pixels, where the format says.
        cam2img: (3, 3) intrinsics, or a (3, 4) or (4, 4) projection whose fourth column is folded
            into ``lidar2cam``.
        lidar2cam: (4, 4), LiDAR at its sweep -> camera at its exposure.
        distortion: ``dict(model='brown' | 'fisheye', coefficients=[...])`` in OpenCV's order; None
            for a rectified image.
    """

    path: Path | None = None
    encoded: Callable[[], bytes] | None = None
    size: tuple[int, int] | None = None
    cam2img: np.ndarray | None = None
    lidar2cam: np.ndarray | None = None
    distortion: dict[str, Any] | None = None


@dataclass
class Sweep:
    """One turn of the LiDAR.

    Attributes:
        path: A raw float32 file that pre-training can read as it is; None where ``points`` reads.
        num_features: Numbers a point of that file.
        points: Returns (M, >= 3) x, y, z, intensity ... in metres in the LiDAR's own frame;
            ``writing`` stores them as a raw float32 file.
    """

    path: Path | None = None
    num_features: int = 4
    points: Callable[[], np.ndarray] | None = None


@dataclass
class Sample:
    """What was seen at one instant.

    Attributes:
        token: Name, unique in the log: it becomes part of file names.
        sequence: The drive it belongs to: whole drives go to train or val.
        images: By camera.
        sweep: None for logs without LiDAR.
        timestamp: Seconds; 0 where the format has none.
        ego2global: (4, 4) pose of the vehicle at the sweep, where the format has poses.
        container: File or folder that holds its images, where they have to be extracted and its
            name is all that tells the drive from others.
    """

    token: str
    sequence: str
    images: dict[str, CameraImage] = field(default_factory=dict)
    sweep: Sweep | None = None
    timestamp: float = 0.0
    ego2global: np.ndarray | None = None
    container: Path | None = None


class LogFormat(ABC):
    """An adapter: where the files of a log lie, and what its calibration says.

    docs/add_a_format.md builds one. A new adapter is a subclass, listed in
    :data:`s3pt_mm.data.formats.FORMATS`.

    Args:
        root: The log's folder or file.
        options: The arguments that :meth:`add_arguments` declared.
    """

    help: ClassVar[str] = ''

    def __init__(self, root: Path, options: argparse.Namespace) -> None:
        self.root = root
        self.options = options

    @classmethod  # noqa: B027 - a format may have none
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Declare options of this format alone; most have none."""

    def some(self, found: Iterable[T], what: str, remedy: str) -> list[T]:
        """What was found below the root, each once, sorted.

        Raises:
            DataError: Nothing was; it says whether the root itself is absent.
        """
        some = sorted(set(found))
        if not some:
            problem = f'no {what} in it' if self.root.exists() else 'no such file or folder'
            raise DataError(self.root, problem, remedy)
        return some

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """All samples in order of time, without reading pixels or points.

        Raises:
            DataError: A file that the format promises is missing or garbled.
        """
