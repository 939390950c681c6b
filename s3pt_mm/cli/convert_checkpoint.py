"""Convert ViT weights between this package, DINO, CrIBo, timm, Hugging Face and torchvision.

    s3pt-convert IN OUT [--from auto] [--to s3pt_mm] [--network teacher]

OUT ends in .safetensors or .pth, or is a folder with --to huggingface.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from s3pt_mm.common.errors import exit_status
from s3pt_mm.weights.convert import convert_file
from s3pt_mm.weights.layouts import LAYOUTS


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file; 0, or 1 after one line about what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', metavar='IN')
    parser.add_argument('target', metavar='OUT')
    parser.add_argument(
        '--from', dest='layout_in', choices=['auto', 'dino', 'cribo', *LAYOUTS], default='auto'
    )
    parser.add_argument('--to', dest='layout_out', choices=list(LAYOUTS), default='s3pt_mm')
    parser.add_argument('--network', choices=['teacher', 'student'], default='teacher')
    parser.add_argument('--num-heads', type=int, help='attention heads; default width / 64')
    args = parser.parse_args(argv)

    def run() -> None:
        size = convert_file(**vars(args))
        print(f'{args.target}: {", ".join(f"{name} {value}" for name, value in size.items())}')

    return exit_status(run, ValueError)
