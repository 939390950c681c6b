"""``look`` of s3pt_mm/cli from a checkout, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from s3pt_mm.cli.look import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())
