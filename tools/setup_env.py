"""Create the virtual environment of ``make setup``; tools/setup_env.sh calls it.

Safe to interrupt and to repeat: the stamp that says "complete" is written last and holds a hash of
all that defines the environment, so a second call takes a fraction of a second and a changed pin
updates in place.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / 'requirements' / 'lock.txt'
EXTENSION = ROOT / 's3pt_mm' / 'hosts' / 'mmcv_ext.py'
#: The files that define the environment.
DEFINITION = (LOCK, ROOT / 'tools' / 'setup_env.sh', Path(__file__), EXTENSION)
#: From PyPI where none is installed; an installed one must know `exclude-dependencies`.
UV, OLDEST_UV = 'uv==0.13.9', (0, 10)
#: An environment from nothing, with uv's cache beside it (measured: 5.8 GB, hard links), rounded
#: up.
NEEDED_BYTES = 8_000_000_000
_IMPORTS = 'import torch, mmcv.ops, mmengine, mmpretrain, mmseg, mmdet, mmdet3d, nuscenes, nuimages'


def environment_key() -> str:
    """Hash of the pins, the set-up scripts, the Python version and the machine's architecture."""
    digest = hashlib.sha256(f'{sys.version_info[:3]} {sys.platform} {os.uname().machine}'.encode())
    for path in DEFINITION:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """``S3PT_MM_CACHE``, else ``s3pt_mm`` in the user's cache folder."""
    if os.environ.get('S3PT_MM_CACHE'):
        return Path(os.environ['S3PT_MM_CACHE']).absolute()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser().absolute() / 's3pt_mm'


def check_disk(folder: Path) -> None:
    """Refuse to begin what a disk cannot hold.

    Raises:
        SystemExit: says how much is needed, how much is there, and what to do.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise SystemExit(
            f'setup: {NEEDED_BYTES / 1e9:.0f} GB of free disk are needed under {folder} and '
            f'{free / 1e9:.1f} GB are there: make room, or set VENV to a folder elsewhere'
        )


def find_uv() -> str | Path:
    """The installed ``uv`` if it is new enough, else one from PyPI in a small environment."""
    found = shutil.which('uv')
    if found:
        answer = subprocess.run([found, '--version'], capture_output=True, text=True).stdout
        version = re.match(r'uv (\d+)\.(\d+)', answer)
        if version and (int(version[1]), int(version[2])) >= OLDEST_UV:
            return found
    folder = (
        cache_folder() / f'{UV.replace("==", "-")}-py{sys.version_info[0]}{sys.version_info[1]}'
    )
    uv = folder / 'bin' / 'uv'
    if not uv.exists():
        print(f'setup: {UV} into {folder}', flush=True)
        _run(sys.executable, '-m', 'venv', folder)
        _run(folder / 'bin' / 'python', '-m', 'pip', 'install', '-qq', UV)
    return uv


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command])
    if done.returncode:
        raise SystemExit(
            f'setup: this command failed (exit {done.returncode}); repeat `make setup` after the '
            f'repair: {" ".join(str(part) for part in command)}'
        )


def _create(uv: str | Path, venv: Path) -> Path:
    """Create the bare environment, or take the one that is there."""
    python = venv / 'bin' / 'python'
    wanted = f'{sys.version_info[0]}.{sys.version_info[1]}'
    if (venv / 'pyvenv.cfg').exists() and python.exists():
        question = 'import sys; print("%d.%d" % sys.version_info[:2])'
        answer = subprocess.run([python, '-c', question], capture_output=True, text=True)
        there = answer.stdout.strip()
        if there == wanted:
            return python
        if answer.returncode == 0:
            raise SystemExit(
                f'setup: {venv} was made with Python {there} and this is {wanted}: remove it, '
                'choose another VENV, or set PYTHON'
            )
    elif any(path.name != '.setup.lock' for path in venv.iterdir()):
        raise SystemExit(f'setup: {venv} exists and is no virtual environment: choose another VENV')
    print(f'setup: creating {venv}', flush=True)
    _run(uv, 'venv', '-q', '--allow-existing', '--python', sys.executable, venv)
    return python


def _fill(venv: Path, *, only_pointer: bool) -> None:
    """Install everything, or move the editable install to this checkout; may be repeated."""
    uv = find_uv()
    python = _create(uv, venv)
    if not only_pointer:
        print('setup: pinned packages (torch and its CUDA libraries are 3 GB to download)')
        sys.stdout.flush()
        _run(uv, 'pip', 'sync', '-q', '--python', python, LOCK)
    editable = ('install', '-q', '--no-deps', '--no-build-isolation', '-e', ROOT)
    _run(uv, 'pip', *editable, '--python', python)
    if not only_pointer:
        print('setup: importing everything once', flush=True)
        _run(python, '-W', 'ignore', '-m', 's3pt_mm.hosts.mmcv_ext')
        check = 'from s3pt_mm.hosts import compat; compat.apply(); compat.check_versions()'
        _run(python, '-W', 'ignore', '-c', f'{check}; {_IMPORTS}')


def main() -> None:
    """Check, fill, stamp."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'venv', nargs='?', default='.venv', help='folder of the virtual environment'
    )
    parser.add_argument(
        '--print-key',
        action='store_true',
        help='print the hash that names the environment, and stop',
    )
    arguments = parser.parse_args()
    key = environment_key()
    if arguments.print_key:
        print(key)
        return
    venv = Path(arguments.venv).absolute()
    stamp = venv / '.s3pt_mm-complete'
    # The editable install points at one checkout; another checkout with the same pins only moves
    # that pointer.
    wanted = f'{key} {ROOT}'
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not stamp.exists():
        check_disk(venv)
    venv.mkdir(parents=True, exist_ok=True)
    with (venv / '.setup.lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'setup: waiting for another set-up of {venv}', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        before = stamp.read_text() if stamp.exists() else ''
        if before == wanted:
            return
        start = time.monotonic()
        stamp.unlink(missing_ok=True)
        _fill(venv, only_pointer=before.split(' ')[0] == key)
        stamp.write_text(wanted)
        print(f'setup: {venv} is complete after {time.monotonic() - start:.0f} s', flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that the set-up ends with its line."""
    raise KeyboardInterrupt


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, _stop)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit('setup: interrupted; run it again to go on') from None
