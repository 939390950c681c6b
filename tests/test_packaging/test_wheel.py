"""Wheel and sdist: built, installed where nothing of the checkout is seen, and run from an empty
folder."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.test_packaging.tiny_runs import pretraining, run, segmentation

pytestmark = pytest.mark.slow
ALONE = {'PYTHONPATH': '', 'PYTHONSAFEPATH': '1', 'PIP_NO_INDEX': '1'}


@pytest.fixture(scope='module')
def built(repository, tmp_path_factory) -> Path:
    """Folder with the sdist, and the wheel that was built from it."""
    pytest.importorskip('build')
    folder = tmp_path_factory.mktemp('built')
    listing = ('git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard')
    tracked = run(*listing, cwd=repository)
    for name in filter(None, tracked.split('\0')):
        if (repository / name).is_file():
            (folder / 'src' / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, folder / 'src' / name)
    build = (sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder)
    run(*build, folder / 'src', cwd=folder, **ALONE)
    shutil.rmtree(folder / 'src')
    return folder


def install(archive: Path, folder: Path) -> Path:
    """An environment with the archive and, through a path file, the libraries of this one, but
    not its editable s3pt_mm: path files are not read in folders that a path file names."""
    run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder.parent)
    (site,) = folder.glob('lib/python*/site-packages')
    (site / 'libraries.pth').write_text(sysconfig.get_path('purelib') + '\n')
    pip = (sys.executable, '-m', 'pip', '--python', folder / 'bin' / 'python', 'install', '-qq')
    run(*pip, '--no-deps', '--no-build-isolation', archive, cwd=folder.parent, **ALONE)
    return site / 's3pt_mm'


@pytest.fixture(scope='module')
def package(built, tmp_path_factory) -> Path:
    """The package as the wheel installs it."""
    (wheel,) = built.glob('*.whl')
    return install(wheel, tmp_path_factory.mktemp('wheel') / 'env')


def test_metadata_is_what_an_index_wants(built) -> None:
    """Long description, classifiers, extras: `twine check --strict`."""
    pytest.importorskip('twine')
    run(sys.executable, '-m', 'twine', 'check', '--strict', *built.glob('s3pt_mm*'), cwd=built)


def test_wheel_and_sdist_install_the_same(built, package, tmp_path) -> None:
    """So whatever the wheel does, the sdist does; both carry configs and tools, not the tests."""

    def files(folder: Path) -> dict[str, bytes]:
        found = (path for path in folder.rglob('*') if path.is_file() and path.suffix != '.pyc')
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    (sdist,) = built.glob('*.tar.gz')
    wheel = files(package)
    assert files(install(sdist, tmp_path / 'env')) == wheel
    for name in ('configs/s3pt/vits16_nuscenes.py', 'tools/train.py', 'model-index.yml'):
        assert f'.mim/{name}' in wheel
    assert {'py.typed', 'reports/look_page.html', 'reports/look_page.js'} <= wheel.keys()
    assert not [name for name in wheel if 'tools/dev' in name or 'tests' in name.split('/')]


def test_pretraining_probe_and_mim_from_an_empty_folder(package, toydrive, tmp_path) -> None:
    """The commands find the configs in the wheel; nothing is found in a checkout."""
    binaries = package.parents[3] / 'bin'
    options = pretraining(toydrive / 'nuscenes')
    config = 'configs/toydrive/dino_vitt16.py'
    run(binaries / 's3pt-train', config, '--cfg-options', *options, cwd=tmp_path, **ALONE)
    (checkpoint,) = tmp_path.rglob('epoch_1.pth')
    options = segmentation(toydrive / 'nuimages', checkpoint)
    config = 'toydrive/linear_vitt16_nuimages.py'
    run(binaries / 's3pt-train', config, '--cfg-options', *options, cwd=tmp_path, **ALONE)
    assert list(tmp_path.rglob('iter_2.pth'))

    mim = (binaries / 'python', '-W', 'ignore', '-c', 'from mim.cli import cli; cli()')
    command = ('train', 's3pt_mm', 'dino_vitt16.py', '--gpus', '0')
    more = ('--work-dir', 'mim', '--cfg-options', *pretraining(toydrive / 'nuscenes'))
    text = run(*mim, *command, *more, cwd=tmp_path, **ALONE)
    assert str(package / '.mim' / 'configs') in text
    assert (tmp_path / 'mim' / 'epoch_1.pth').is_file()
