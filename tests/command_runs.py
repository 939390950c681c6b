"""Commands from standard input, one JSON list a line, each in a fork of this one process, which has
imported the hosts once; prints ``exit code, seconds`` of each."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback


def child(module: str, arguments: list[str], log: str) -> int:
    """Exit code of ``main`` of a module; what it prints goes to a file."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    try:
        return importlib.import_module(module).main(arguments) or 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code)
            return 1
        return stop.code or 0
    except BaseException:  # noqa: BLE001 (a fork never returns into the loop below)
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()


def main() -> None:
    """Read, fork, wait."""
    from s3pt_mm.hosts import compat

    compat.apply()
    for module in ('mmpretrain.models', 'mmseg.models', 'mmdet3d.models', 's3pt_mm.toydrive'):
        importlib.import_module(module)
    for line in sys.stdin:
        module, log, *arguments = json.loads(line)
        start = time.monotonic()
        process = os.fork()
        if process == 0:
            os._exit(child(module, arguments, log))
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps([code, time.monotonic() - start]), flush=True)


if __name__ == '__main__':
    main()
