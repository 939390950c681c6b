"""Rigid poses, projection into cameras and crop geometry: pure NumPy, no files, no torch."""

from s3pt_mm.data.geometry.crops import bin_depth, check_grid, token_positions
from s3pt_mm.data.geometry.lens import check_lens, distort, fold_projection
from s3pt_mm.data.geometry.poses import invert, lidar_to_camera, quaternion_to_rotation, rigid
from s3pt_mm.data.geometry.projection import cam_to_image, project_points, transform_points

__all__ = [
    'bin_depth',
    'cam_to_image',
    'check_grid',
    'check_lens',
    'distort',
    'fold_projection',
    'invert',
    'lidar_to_camera',
    'project_points',
    'quaternion_to_rotation',
    'rigid',
    'token_positions',
    'transform_points',
]
