"""Installation of s3pt_mm: ranges from requirements/, version from the package, nothing
imported."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """Lines of ``requirements/<name>.txt`` without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def version() -> str:
    """``__version__`` of the package, read as text."""
    found = re.search(r"^__version__ = '([^']+)'", (ROOT / 's3pt_mm/__init__.py').read_text(), re.M)
    if found is None:
        raise RuntimeError('s3pt_mm/__init__.py has no line __version__ = ...')
    return found[1]


setup(
    name='s3pt_mm',
    version=version(),
    description='S3PT, CrIBo and DINO pre-training on driving frames, for OpenMMLab',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    packages=find_packages(include=['s3pt_mm', 's3pt_mm.*']),
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in ('detection', 'toydrive', 'tests')},
)
