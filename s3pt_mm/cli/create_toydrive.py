"""Generate ToyDrive, the embedded data set: procedural streets as nuScenes, nuImages, Cityscapes.

s3pt-toydrive --out data/toydrive --seed 0
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields

from s3pt_mm.common.errors import explain
from s3pt_mm.toydrive import ToyDriveConfig, generate
from s3pt_mm.toydrive.config import OUTPUTS, WEATHERS

_SHORT = dict(samples_per_scene='--samples', image_scale='--image-scale')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line to values; whatever is not given stays None."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default='data/toydrive', help='folder to write')
    parser.add_argument('--only', default=','.join(OUTPUTS), help='outputs, comma-separated')
    parser.add_argument('--weather', choices=WEATHERS, default='day')
    parser.add_argument('--full-resolution', action='store_true', help='shade every pixel')
    parser.add_argument('--tiny', action='store_true', help='smallest set, for tests')
    parser.add_argument('--overwrite', action='store_true', help='replace another ToyDrive there')
    for field in fields(ToyDriveConfig):
        if field.name not in ('outputs', 'weather'):
            flag = _SHORT.get(field.name, '--' + field.name.replace('_', '-'))
            kind = type(field.default)
            parser.add_argument(flag, dest=field.name, type=kind, help=f'default {field.default}')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Generate; returns the exit status."""
    args = parse_args(argv)
    values = {f.name: getattr(args, f.name) for f in fields(ToyDriveConfig) if f.name != 'outputs'}
    values = {name: value for name, value in values.items() if value is not None}
    values['outputs'] = tuple(part for part in args.only.split(',') if part)
    if args.full_resolution:
        values['image_scale'] = 1.0
    try:
        config = (ToyDriveConfig.tiny if args.tiny else ToyDriveConfig)(**values)
        out = generate(args.out, config, overwrite=args.overwrite)
    except (ValueError, OSError) as error:
        print(f'create_toydrive: {explain(error)}', file=sys.stderr)
        return 2
    print(f'ToyDrive: {out}')
    return 0
