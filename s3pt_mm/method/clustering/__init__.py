"""Joint-view clustering: pure functions of tokens, positions and depths."""

from s3pt_mm.method.clustering.joint_view import Assignment, ClusteringConfig, cluster_joint_views
from s3pt_mm.method.clustering.objects import ObjectPooling, draw_first_tokens

__all__ = [
    'Assignment',
    'ClusteringConfig',
    'ObjectPooling',
    'cluster_joint_views',
    'draw_first_tokens',
]
