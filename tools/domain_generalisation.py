"""Test a trained segmentor on another data set over the shared classes.

python tools/domain_generalisation.py CONFIG CHECKPOINT --target CONFIG --mapping PAIR --out-dir DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without installation too

from s3pt_mm.hosts import compat  # noqa: E402

compat.apply()

from s3pt_mm.cli.domain_generalisation import add_arguments, run  # noqa: E402


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == '__main__':
    main()
