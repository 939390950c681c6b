"""S3PT: scene-semantics and structure guided self-supervised pre-training for OpenMMLab.

Importing this package imports nothing heavy: a config names the rooms that it uses in
``custom_imports``.
"""

__version__ = '0.1.0'

#: Supported host versions, ``package: (first accepted, first refused)``.
#: ``s3pt_mm.hosts.compat`` checks them when a launcher starts. The upper bounds of
#: mmcv and mmdet are the ones that mmsegmentation and mmdetection3d assert themselves; torch starts
#: at 2.6 because from there ``torch.load`` refuses pickled code unless told otherwise.
VERSION_WINDOWS: dict[str, tuple[str, str]] = {
    'torch': ('2.6', '3'),
    'numpy': ('1.24', '3'),
    'mmengine': ('0.10.4', '1'),
    'mmcv': ('2.1.0', '2.2.0'),
    'mmcv-lite': ('2.1.0', '2.2.0'),
    'mmpretrain': ('1.2.0', '2'),
    'mmsegmentation': ('1.2.2', '2'),
    'mmdet': ('3.2.0', '3.3.0'),
    'mmdet3d': ('1.4.0', '1.5.0'),
}

__all__ = ['VERSION_WINDOWS', '__version__']
