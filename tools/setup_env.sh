#!/bin/sh
# Create or update the virtual environment: tools/setup_env.sh [--print-key] VENV
#
# This file only finds a Python that may run the rest (tools/setup_env.py). Set PYTHON to choose one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
accepted='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'

if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" >/dev/null 2>&1 || { echo "setup: PYTHON=$PYTHON is not a command" >&2; exit 1; }
    found=$PYTHON
else
    found=
    for candidate in python3 python3.11 python3.12 python3.10; do
        if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$accepted" >/dev/null 2>&1; then
            found=$candidate
            break
        fi
    done
fi
if [ -z "$found" ] || ! "$found" -c "$accepted" >/dev/null 2>&1; then
    have=$("${found:-python3}" -V 2>&1 | head -n 1 || echo none)
    echo "setup: Python 3.10, 3.11 or 3.12 is needed and '$have' was found; install one or set PYTHON=/path/to/python3.11" >&2
    exit 1
fi
exec "$found" "$here/setup_env.py" "$@"
