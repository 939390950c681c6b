"""Supplement's Table 5: IoU of the detection classes, published figures beside our own.

python tools/analysis/table5.py --help
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works without installation too

from s3pt_mm.reports.table5 import add_arguments, run  # noqa: E402


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == '__main__':
    main()
