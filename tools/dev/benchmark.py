#!/usr/bin/env python
"""Measure what a step costs against what it has to cost; every figure is a ratio of one run.

python tools/dev/benchmark.py pretrain configs/s3pt/vits16_nuscenes.py
python tools/dev/benchmark.py scaling configs/s3pt/vits16_nuscenes.py
python tools/dev/benchmark.py data | segment | petr
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# Each is a module with add_arguments(parser) and run(args); imported only when asked for, since
# they need different host libraries.
BENCHMARKS = {
    'pretrain': ('tools.dev.benchmark_pretrain', 'a pre-training step against its floor'),
    'scaling': ('tools.dev.benchmark_scaling', 'memory and time against objects, images, clusters'),
    'data': ('tools.dev.benchmark_data', "views against torchvision's pipeline"),
    'segment': ('tools.dev.benchmark_segmentation', 'a probing step against the backbone alone'),
    'petr': ('tools.dev.benchmark_detection', 'a PETR step against backbone and head'),
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark that the command line names."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='benchmark', required=True)
    wanted = argv[0] if argv and argv[0] in BENCHMARKS else None
    for name, (module, description) in BENCHMARKS.items():
        command = commands.add_parser(name, help=description, description=description)
        if name == wanted:
            from s3pt_mm.hosts import compat

            compat.apply()
            importlib.import_module(module).add_arguments(command)
    args = parser.parse_args(argv)
    importlib.import_module(BENCHMARKS[args.benchmark][0]).run(args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
