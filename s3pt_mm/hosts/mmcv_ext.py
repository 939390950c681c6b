"""Stands where mmcv's compiled operators are not installed: names exist, and calls raise.

:func:`s3pt_mm.hosts.compat.stand_in_for_mmcv_operators` loads this file as ``mmcv._ext`` under
mmcv-lite. Hosts that import ``mmcv.ops`` before they read a config (mmdet3d's tools, mmseg's
inferencer) need it on disk: ``python -m s3pt_mm.hosts.mmcv_ext`` copies it into the installed
mmcv-lite, and ``make setup`` does that. A compiled ``_ext`` beside it wins, so a full mmcv that is
installed later is used. Those hosts also import mmpretrain's models before a config could say so,
hence the steps of compat here.
"""

if __name__ == 'mmcv._ext':
    try:
        import s3pt_mm.hosts.applied  # noqa: F401
    except ImportError:  # s3pt_mm was uninstalled, this file stayed
        pass


def __getattr__(name):
    """A function that says what is missing, for every operator."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(
            f"{name} is one of mmcv's compiled operators, and mmcv-lite has none of them. "
            'Nothing of s3pt_mm calls one. For models that do, install the full mmcv in place '
            'of mmcv-lite: pip uninstall mmcv-lite, then pip install "mmcv>=2.1,<2.2"'
        )

    return missing


if __name__ == '__main__':
    import importlib.util
    import shutil
    from pathlib import Path

    folder = Path(importlib.util.find_spec('mmcv').origin).parent
    if list(folder.glob('_ext.*.so')):
        print(f'{folder} has its compiled operators; nothing to do')
    else:
        shutil.copyfile(__file__, folder / '_ext.py')
        print(f'wrote {folder / "_ext.py"}')
