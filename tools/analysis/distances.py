"""Distances of vehicles, pedestrians and cyclists in any info file (the supplement's Fig. 2).

Example:
    python tools/analysis/distances.py data/nuscenes/nuscenes_infos_train.parquet \\
        data/nuscenes/nuscenes_infos_val.parquet --out work_dirs/distances
"""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('infos', nargs='+', help='info files; their objects are taken together')
    parser.add_argument('--out', required=True, help='path without ending, e.g. out/fig2')
    parser.add_argument('--cap', type=float, default=65.0, help='metres; default 65')
    parser.add_argument(
        '--valid-only', action='store_true', help='leave out objects without LiDAR and radar points'
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Reads the info files and writes figure and numbers; returns the exit code."""
    args = parse_args(argv)
    from s3pt_mm.hosts import compat

    compat.apply()
    from s3pt_mm.common.errors import DataError
    from s3pt_mm.data.datasets.info_file import load_info_file
    from s3pt_mm.reports.detection_distances import write_distances
    from s3pt_mm.reports.distances import object_distances

    try:
        contents = [load_info_file(path) for path in args.infos]
        categories = contents[0]['metainfo'].get('categories')
        if any(content['metainfo'].get('categories') != categories for content in contents):
            raise ValueError(f'{args.infos} number their classes differently')
        distances = object_distances(
            (info for content in contents for info in content['data_list']),
            categories=categories,
            cap=args.cap,
            valid_only=args.valid_only,
        )
        source = ', '.join(os.path.basename(path) for path in args.infos)
        paths = write_distances(distances, args.out, cap=args.cap, source=source)
    except (DataError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(next(path for path in paths if path.suffix == '.md').read_text())
    print('written:', *paths)
    return 0


if __name__ == '__main__':
    sys.exit(main())
