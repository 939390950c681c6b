"""Rigid poses, projection into cameras and crop geometry: pure NumPy, no files, no torch."""

from .crops import bin_depth, check_grid, token_positions
from .poses import invert, lidar_to_camera, quaternion_to_rotation, rigid
from .projection import cam_to_image, project_points, transform_points

__all__ = [
    'bin_depth',
    'cam_to_image',
    'check_grid',
    'invert',
    'lidar_to_camera',
    'project_points',
    'quaternion_to_rotation',
    'rigid',
    'token_positions',
    'transform_points',
]
