"""Adapters of log formats: each turns a log into samples, and ``writing`` into an info file."""

from __future__ import annotations

import importlib

from s3pt_mm.data.formats.base import CameraImage, LogFormat, Sample, Sweep

#: Name of the sub-command -> module and class; only the one that is asked for is imported.
FORMATS: dict[str, tuple[str, str]] = {
    'folder': ('s3pt_mm.data.formats.folder', 'Folder'),
    'kitti-raw': ('s3pt_mm.data.formats.kitti', 'KittiRaw'),
    'kitti-object': ('s3pt_mm.data.formats.kitti', 'KittiObject'),
    'pandaset': ('s3pt_mm.data.formats.pandaset', 'PandaSet'),
    'argoverse2': ('s3pt_mm.data.formats.argoverse2', 'Argoverse2'),
    'waymo': ('s3pt_mm.data.formats.waymo', 'Waymo'),
    'rosbag': ('s3pt_mm.data.formats.rosbag', 'RosBag'),
    'video': ('s3pt_mm.data.formats.video', 'Video'),
}


def log_format(name: str) -> type[LogFormat]:
    """The adapter of a format.

    Raises:
        ImportError: An optional package is missing; the message names the extra.
    """
    module, cls = FORMATS[name]
    return getattr(importlib.import_module(module), cls)


__all__ = ['FORMATS', 'CameraImage', 'LogFormat', 'Sample', 'Sweep', 'log_format']
