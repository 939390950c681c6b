"""Tables and figures of finished runs: ``s3pt-report NAME ...``; ``--help`` after any of them.

Each report is a module with ``add_arguments(parser)`` and ``run(args)``; only the one that is asked
for is imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

REPORTS = {
    'table5': ('s3pt_mm.reports.table5', 'IoU of the detection classes beside published figures'),
    'objectwise': ('s3pt_mm.reports.objectwise', 'IoU of every class over runs, figure and table'),
    'qualitative': ('s3pt_mm.reports.qualitative', 'images, ground truth and predictions'),
    'distances': ('s3pt_mm.reports.detection_distances', 'how far the objects of info files are'),
    'ranges': ('s3pt_mm.cli.range_table', 'AP by class and distance beside published figures'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the report ``argv[0]`` on the rest; 0, or 1 after one line about what is wrong."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in REPORTS:
        lines = '\n'.join(f'  {name:13} {text}' for name, (_, text) in REPORTS.items())
        print(f'usage: s3pt-report NAME [options]\n{lines}', file=sys.stderr)
        return 0 if argv and argv[0] in ('-h', '--help') else 2
    from s3pt_mm.common.errors import exit_status
    from s3pt_mm.hosts import compat

    compat.apply()
    name, *rest = argv
    module, text = REPORTS[name]
    report = importlib.import_module(module)
    parser = argparse.ArgumentParser(prog=f's3pt-report {name}', description=text)
    report.add_arguments(parser)
    args = parser.parse_args(rest)
    return exit_status(lambda: report.run(args), ValueError)
