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
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import build_mmcv
import preflight

ROOT = Path(__file__).resolve().parents[2]
#: The files that define the environment.
DEFINITION = ('requirements/*.txt', 'tools/setup_env.sh', 'tools/setup/*.py', 'tools/setup/*.sh')
_IMPORTS = 'import torch, mmcv.ops, mmengine, mmpretrain, mmseg, mmdet, mmdet3d, nuscenes, nuimages'


def environment_key() -> str:
    """Hash of the pins, the set-up scripts, the Python version and the machine's architecture."""
    digest = hashlib.sha256(f'{sys.version_info[:3]} {sys.platform} {os.uname().machine}'.encode())
    for pattern in DEFINITION:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """``S3PT_MM_CACHE``, else ``s3pt_mm`` in the user's cache folder."""
    if os.environ.get('S3PT_MM_CACHE'):
        return Path(os.environ['S3PT_MM_CACHE']).absolute()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser().absolute() / 's3pt_mm'


def pinned(name: str) -> str:
    """Version of a package in requirements/lock.txt."""
    for line in (ROOT / 'requirements' / 'lock.txt').read_text().splitlines():
        if line.startswith(f'{name}=='):
            return line.split('==')[1].split()[0]
    raise SystemExit(f'setup: requirements/lock.txt has no line {name}==...')


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command])
    if done.returncode:
        raise SystemExit(
            f'setup: this command failed (exit {done.returncode}); repeat `make setup` after the '
            f'repair: '
            f'{" ".join(str(part) for part in command)}'
        )


def _create(venv: Path) -> Path:
    """Create the bare environment, or take the one that is there."""
    python = venv / 'bin' / 'python'
    wanted = f'{sys.version_info[0]}.{sys.version_info[1]}'
    if (venv / 'pyvenv.cfg').exists():
        answer = (
            subprocess.run(
                [python, '-c', 'import sys; print("%d.%d" % sys.version_info[:2])'],
                capture_output=True,
                text=True,
            )
            if python.exists()
            else None
        )
        if answer is not None and answer.returncode == 0 and answer.stdout.strip() != wanted:
            raise SystemExit(
                f'setup: {venv} was made with Python {answer.stdout.strip()} and this is '
                f'{wanted}: remove it, '
                'choose another VENV, or set PYTHON'
            )
        if answer is not None and answer.returncode == 0 and (venv / 'bin' / 'pip').exists():
            return python
    elif venv.exists() and any(path.name != '.setup.lock' for path in venv.iterdir()):
        raise SystemExit(f'setup: {venv} exists and is no virtual environment: choose another VENV')
    print(f'setup: creating {venv}', flush=True)
    _run(sys.executable, '-m', 'venv', venv)
    return python


def _fill(venv: Path, cache: Path) -> None:
    """Install everything; every step may be repeated."""
    python = _create(venv)
    pip = [
        python,
        '-m',
        'pip',
        '--disable-pip-version-check',
        'install',
        '--no-deps',
        '--progress-bar',
        'off',
        '-qq',
    ]
    print('setup: build tools', flush=True)
    _run(*pip, '-r', ROOT / 'requirements' / 'build.txt')
    print('setup: pinned packages (torch and its CUDA libraries are 3 GB to download)', flush=True)
    without_mmcv = ROOT / 'requirements' / 'lock.txt'
    with tempfile.NamedTemporaryFile('w', suffix='.txt') as file:
        file.writelines(
            line
            for line in without_mmcv.read_text().splitlines(keepends=True)
            if not line.startswith('mmcv==')
        )
        file.flush()
        _run(*pip, '--no-build-isolation', '-r', file.name)
    wheel = build_mmcv.wheel_for(python, pinned('mmcv'), cache)
    _run(*pip, '--force-reinstall', wheel)
    _run(*pip, '--no-build-isolation', '-e', ROOT)
    print('setup: importing everything once', flush=True)
    _run(
        python,
        '-W',
        'ignore',
        '-c',
        f'from s3pt_mm.hosts import compat; compat.apply(); compat.check_versions(); {_IMPORTS}',
    )


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
    venv, cache = Path(arguments.venv).absolute(), cache_folder()
    stamp = venv / '.s3pt_mm-complete'
    # The editable install points at one checkout; another checkout with the same pins only moves
    # that pointer.
    wanted = f'{key} {ROOT}'
    if stamp.exists() and stamp.read_text() == wanted:
        return
    problems = preflight.check_machine()
    if not stamp.exists():
        problems += preflight.check_space(venv, Path(tempfile.gettempdir()), cache)
    if problems:
        raise SystemExit('\n'.join(f'setup: {problem}' for problem in problems))
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
        if before.split(' ')[0] == key:
            _run(
                venv / 'bin' / 'python',
                '-m',
                'pip',
                '--disable-pip-version-check',
                'install',
                '-qq',
                '--no-deps',
                '--no-build-isolation',
                '-e',
                ROOT,
            )
        else:
            cache.mkdir(parents=True, exist_ok=True)
            _fill(venv, cache)
        stamp.write_text(wanted)
        print(f'setup: {venv} is complete after {time.monotonic() - start:.0f} s', flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that the compilers are stopped and the build folder is
    removed."""
    raise KeyboardInterrupt


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, _stop)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit('setup: interrupted; run it again to go on') from None
    except RuntimeError as error:
        raise SystemExit(f'setup: {error}') from None
