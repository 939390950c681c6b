"""Which extra of this package brings a module that the run time alone does not have."""

from __future__ import annotations

EXTRAS = {
    'segmentation': ('mmseg', 'faiss', 'ftfy', 'pycocotools', 'regex'),
    'detection': ('mmdet', 'mmdet3d', 'nuscenes', 'pyquaternion'),
    'toydrive': ('embreex', 'trimesh'),
    'formats': ('av', 'imagehash', 'laspy', 'plyfile', 'pypcd4', 'rosbags'),
    'export': ('onnx', 'onnxruntime', 'timm', 'transformers'),
}


def missing_extra(error: BaseException) -> str | None:
    """What to install where ``error``, or one that it followed, is about a module of an extra.

    mmengine raises errors of its own in the place of a config's failed import, hence the search.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError):
            name = (cause.name or '').partition('.')[0]
            for extra, modules in EXTRAS.items():
                if name in modules:
                    return f'{name} is not installed: pip install "s3pt_mm[{extra}]"'
        cause = cause.__cause__ or cause.__context__
    return None
