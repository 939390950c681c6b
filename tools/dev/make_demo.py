#!/usr/bin/env python
"""ToyDrive, a short S3PT run and a report, in one command. ``make demo`` calls it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from s3pt_mm.hosts import compat  # noqa: E402

compat.apply()

from tools.dev.demo import run as demo  # noqa: E402

if __name__ == '__main__':
    demo.main()
