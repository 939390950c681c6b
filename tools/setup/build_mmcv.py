"""Compile mmcv with its operators once per machine, and keep the wheel.

PyPI has mmcv 2.1.0 as source only. The wheel lies in a cache outside every checkout, named by all
that it depends on (mmcv, Python, torch, compiler, recipe), so that the next environment takes
seconds. The recipe and its timings are in docs/installation.md.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

WRAPPER = Path(__file__).with_name('g++-cxx20.sh')
_STEP = re.compile(r'^\s*\[(\d+)/(\d+)\]')

#: Asks the environment's own Python for everything that the precompiled header has to agree with.
_QUERY = """
import sys, sysconfig, torch
from torch.utils.cpp_extension import include_paths
print(sys.version_info[0] * 100 + sys.version_info[1])
print(torch.__version__)
print(sysconfig.get_config_var("CFLAGS") or "")
print(sysconfig.get_config_var("CCSHARED") or "-fPIC")
print("\\n".join([*include_paths(), sysconfig.get_paths()["include"]]))
"""


def jobs(cpus: int, memory_bytes: int) -> int:
    """Number of compilers at a time: one a core, as long as each finds 1.5 GB of memory."""
    return max(1, min(cpus, memory_bytes // 1_500_000_000))


def _free_memory() -> int:
    for line in Path('/proc/meminfo').read_text().splitlines():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) * 1024
    return 1_500_000_000


def report_progress(lines: Iterable[str], log: Path, *, terminal: bool) -> None:
    """Write every line to a log and show ninja's counter, with the time that is left.

    Args:
        lines: the build's output.
        log: file that keeps all of it.
        terminal: rewrite one line; otherwise print a line every tenth file.
    """
    start = time.monotonic()
    with log.open('w') as file:
        for line in lines:
            file.write(line)
            step = _STEP.match(line)
            if not step:
                continue
            file.flush()
            done, total = int(step[1]), int(step[2])
            spent = time.monotonic() - start
            text = f'mmcv: {done}/{total} files compiled, {spent:.0f} s'
            if 1 < done < total:
                text += f', about {spent / done * (total - done):.0f} s left'
            if terminal:
                print(f'\r{text:<70}', end='\n' if done == total else '', flush=True)
            elif done in (1, total) or done % 10 == 0:
                print(text, flush=True)


def _has_operators(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as archive:
        return any(re.match(r'mmcv/_ext.*\.so$', name) for name in archive.namelist())


def _precompile(build: Path, flags: list[str]) -> str | None:
    """Precompile torch's header; None, and a slower build, if the compiler will not."""
    header = build / 'torch_types.h'
    header.write_text('#include <torch/types.h>\n')
    command = [
        os.environ.get('S3PT_CXX', 'g++'),
        *flags,
        '-DTORCH_API_INCLUDE_EXTENSION_H',
        '-DTORCH_EXTENSION_NAME=_ext',
        '-std=c++20',
        '-O2',
        '-g0',
        '-w',
        '-x',
        'c++-header',
        str(header),
        '-o',
        f'{header}.gch',
    ]
    print("mmcv: precompiling torch's headers (about half a minute)", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(
            f'mmcv: no precompiled header, the build takes about three times as long: '
            f'{done.stderr.strip()[-300:]}'
        )
        return None
    return str(header)


def wheel_for(python: Path, version: str, cache: Path) -> Path:
    """Find the compiled wheel in the cache, or build it.

    Args:
        python: interpreter of an environment that has torch, setuptools < 81, wheel and ninja.
        version: version of mmcv.
        cache: folder of this package's cache.

    Returns:
        Path of a wheel that has ``mmcv/_ext*.so``.

    Raises:
        RuntimeError: the build failed; the message names the log and shows its end.
    """
    answer = subprocess.run(
        [python, '-c', _QUERY], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    tag, torch_version, cflags, shared, *includes = answer
    cuda = os.environ.get('S3PT_MMCV_CUDA', '0')
    compiler = subprocess.run(
        [os.environ.get('S3PT_CXX', 'g++'), '-dumpfullversion'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    recipe = hashlib.sha256(WRAPPER.read_bytes() + cuda.encode()).hexdigest()[:8]
    folder = (
        cache / 'wheels' / f'mmcv-{version}-cp{tag}-torch{torch_version}-g++{compiler}-{recipe}'
    )
    kept = [wheel for wheel in sorted(folder.glob('mmcv-*.whl')) if _has_operators(wheel)]
    if kept:
        print(f'mmcv: using {kept[0]}', flush=True)
        return kept[0]

    for left in folder.glob('build-*'):
        if left.is_dir() and not Path('/proc', left.name.split('-')[1]).exists():
            shutil.rmtree(left, ignore_errors=True)  # of a build that was killed
    build = folder / f'build-{os.getpid()}'
    build.mkdir(parents=True)
    log = folder / 'build.log'
    try:
        flags = [*shlex.split(cflags), *shlex.split(shared), *(f'-I{path}' for path in includes)]
        header = _precompile(build, flags)
        environment = dict(
            os.environ,
            MMCV_WITH_OPS='1',
            FORCE_CUDA=cuda,
            CXX=str(WRAPPER),
            S3PT_PCH=header or '',
            TMPDIR=str(build),
            MAX_JOBS=os.environ.get('MAX_JOBS', str(jobs(os.cpu_count() or 1, _free_memory()))),
        )
        if cuda == '0':
            environment['CUDA_VISIBLE_DEVICES'] = ''
        # pip's own wheel cache knows nothing of torch's version or of MMCV_WITH_OPS: it must not
        # take part.
        command = [
            str(python),
            '-m',
            'pip',
            '--no-cache-dir',
            '--disable-pip-version-check',
            'wheel',
            '-v',
            '--no-deps',
            '--no-build-isolation',
            f'mmcv=={version}',
            '-w',
            str(build / 'wheel'),
        ]
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            bufsize=1,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            report_progress(process.stdout, log, terminal=sys.stdout.isatty())
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
        built = [wheel for wheel in (build / 'wheel').glob('mmcv-*.whl') if _has_operators(wheel)]
        if code or not built:
            end = '\n'.join(log.read_text().splitlines()[-30:])
            raise RuntimeError(
                f'{end}\nmmcv {version} could not be built with its operators (exit {code}); all '
                f'output is '
                f'in {log}. Remedy: a C++20 compiler (g++ 11 or newer), and memory of 1.5 GB for '
                f'each of '
                f'MAX_JOBS={environment["MAX_JOBS"]}'
            )
        return Path(shutil.move(str(built[0]), folder / built[0].name))
    finally:
        shutil.rmtree(build, ignore_errors=True)
