"""Dense nearest-neighbour segmentation of a backbone, without training.

python tools/dense_knn.py CHECKPOINT --train LIST --val LIST
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without installation too

from s3pt_mm.hosts import compat  # noqa: E402

compat.apply()

from s3pt_mm.cli.dense_knn import add_arguments, run  # noqa: E402


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    run(parser.parse_args())


if __name__ == '__main__':
    main()
