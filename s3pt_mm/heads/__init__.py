"""Projection head and prototypes."""

from s3pt_mm.heads.projection_head import BatchStatNorm, ProjectionHead
from s3pt_mm.heads.prototypes import Prototypes

__all__ = ['BatchStatNorm', 'ProjectionHead', 'Prototypes']
