"""Projection head and prototypes."""

from s3pt_mm.method.heads.projection_head import BatchStatNorm, ProjectionHead
from s3pt_mm.method.heads.prototypes import Prototypes

__all__ = ['BatchStatNorm', 'ProjectionHead', 'Prototypes']
