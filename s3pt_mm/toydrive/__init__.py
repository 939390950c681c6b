"""ToyDrive: procedural street scenes written as nuScenes, nuImages and Cityscapes.

>>> from s3pt_mm.toydrive import ToyDriveConfig, generate
>>> generate('data/toydrive', ToyDriveConfig(seed=0))  # doctest: +SKIP
"""

from s3pt_mm.toydrive.config import ToyDriveConfig
from s3pt_mm.toydrive.generation import generate

__all__ = ['ToyDriveConfig', 'generate']
