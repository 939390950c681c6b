#!/usr/bin/env python
"""What each part of the method does: a ladder of short runs, beside controls, on given folders.

python tools/dev/make_evidence.py --toydrive data/toydrive --camvid CAMVID --pandaset PANDASET
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from s3pt_mm.hosts import compat  # noqa: E402

compat.apply()

from tools.dev.evidence import run as evidence  # noqa: E402

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    evidence.add_arguments(parser)
    evidence.run(parser.parse_args())
