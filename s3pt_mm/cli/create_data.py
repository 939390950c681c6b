"""Prepare datasets: ``s3pt-data FORMAT ...``; ``--help`` after any of them.

Each sub-command is a module of the package with ``add_arguments(parser)`` and ``run(args)``; only
the one that is asked for is imported.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    'nuscenes': (
        's3pt_mm.data.datasets.nuscenes_infos',
        'info files for pre-training and detection',
    ),
    'nuimages': ('s3pt_mm.data.nuimages_masks', 'semantic masks for segmentation'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sub-command ``argv[0]`` on the rest; 0, or 1 after one line about bad data."""
    from s3pt_mm.data.formats import FORMATS, log_format

    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in {*COMMANDS, *FORMATS}:
        texts = {name: text for name, (_, text) in COMMANDS.items()}
        texts.update({name: log_format(name).help for name in FORMATS})
        lines = '\n'.join(f'  {name:13} {text}' for name, text in texts.items())
        print(f'usage: s3pt-data FORMAT [options]\n{lines}', file=sys.stderr)
        return 0 if argv and argv[0] in ('-h', '--help') else 2
    from s3pt_mm.common.errors import exit_status

    name = argv[0]
    parser = argparse.ArgumentParser(prog=f's3pt-data {name}')
    if name in FORMATS:
        command = importlib.import_module('s3pt_mm.data.formats.command')
        parser.description = log_format(name).help
        command.add_arguments(parser, name)
        run = functools.partial(command.run, name=name)
    else:
        module, parser.description = COMMANDS[name]
        command = importlib.import_module(module)
        command.add_arguments(parser)
        run = command.run
    args = parser.parse_args(argv[1:])
    return exit_status(lambda: run(args))
