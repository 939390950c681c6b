"""Pictures of what pre-training would read: photos with the LiDAR projected into them.

python tools/look_at_data.py data/mine/folder_infos_train.pkl
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without installation too

from s3pt_mm.hosts import compat  # noqa: E402

compat.apply()

from s3pt_mm.cli.look_at_data import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())
