"""Installation of s3pt_mm: ranges from requirements/, version from the package, nothing
imported."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

#: Command ``s3pt-NAME`` is ``main`` of ``s3pt_mm/cli/MODULE.py``, as ``tools/MODULE.py`` is.
COMMANDS = {
    'check': 'check_data',
    'clusters': 'clusters',
    'convert': 'convert_checkpoint',
    'data': 'create_data',
    'domains': 'domain_generalisation',
    'embed': 'embed',
    'export': 'export',
    'knn': 'dense_knn',
    'look': 'look',
    'look-at-data': 'look_at_data',
    'prepare': 'prepare_images',
    'report': 'report',
    'sweep': 'sweep',
    'test': 'test',
    'toydrive': 'create_toydrive',
    'train': 'train',
}

#: What OpenMMLab's ``mim`` looks for inside an installed package, in a folder ``.mim``.
FOR_MIM = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Wheels carry configs and tools; an editable install uses the checkout's."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 's3pt_mm' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        without = shutil.ignore_patterns('__pycache__', 'dev', 'setup_env.*', '__init__.py')
        for name in FOR_MIM:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=without)
            else:
                shutil.copy(source, target / name)


def requirements(name: str) -> list[str]:
    """Lines of ``requirements/<name>.txt`` without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def extras() -> dict[str, list[str]]:
    """Every file of requirements/ but the run time's and the lock, and ``all`` for users."""
    names = {path.stem for path in (ROOT / 'requirements').glob('*.txt')} - {'runtime', 'lock'}
    found = {name: requirements(name) for name in sorted(names)}
    rooms = ('segmentation', 'detection', 'toydrive', 'formats', 'export')
    return found | {'all': [line for room in rooms for line in found[room]]}


def version() -> str:
    """``__version__`` of the package, read as text."""
    found = re.search(r"^__version__ = '([^']+)'", (ROOT / 's3pt_mm/__init__.py').read_text(), re.M)
    if found is None:
        raise RuntimeError('s3pt_mm/__init__.py has no line __version__ = ...')
    return found[1]


setup(
    version=version(),
    packages=find_packages(include=['s3pt_mm', 's3pt_mm.*']),
    package_data={'s3pt_mm': ['py.typed'], 's3pt_mm.reports': ['*.html', '*.js']},
    include_package_data=False,
    install_requires=requirements('runtime'),
    extras_require=extras(),
    entry_points={
        'console_scripts': [
            f's3pt-{name} = s3pt_mm.cli.entry:{module}' for name, module in COMMANDS.items()
        ]
    },
    cmdclass={'build_py': BuildWithMim},
)
