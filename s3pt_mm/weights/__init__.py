"""Safe reading, writing and conversion of weights."""

from s3pt_mm.common.reading import UnsafeCheckpointError, read_checkpoint
from s3pt_mm.weights.convert import CONTAINERS, convert_file, from_backbone, to_backbone
from s3pt_mm.weights.files import write_weights
from s3pt_mm.weights.layouts import LAYOUTS, LayoutError

__all__ = [
    'CONTAINERS',
    'LAYOUTS',
    'LayoutError',
    'UnsafeCheckpointError',
    'convert_file',
    'from_backbone',
    'read_checkpoint',
    'to_backbone',
    'write_weights',
]
