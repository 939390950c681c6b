"""Console scripts: ``s3pt_mm.cli.entry:train`` runs ``main`` of ``s3pt_mm/cli/train.py``."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
from collections.abc import Callable

from s3pt_mm.common.extras import missing_extra


def __getattr__(name: str) -> Callable[[], int | None]:
    """The entry point of a command; importing this module imports none of them.

    Raises:
        AttributeError: there is no such command.
    """
    if name.startswith('_') or importlib.util.find_spec(f's3pt_mm.cli.{name}') is None:
        raise AttributeError(f'{__name__} has no command {name}')

    def main() -> int | None:
        try:
            return importlib.import_module(f's3pt_mm.cli.{name}').main()
        except KeyboardInterrupt:  # training saves first, once it has begun
            print('interrupted', file=sys.stderr)
            return 128 + signal.SIGINT
        except ImportError as error:
            remedy = missing_extra(error)
            if remedy is None:
                raise
            print(f'error: {remedy}', file=sys.stderr)
            return 1

    return main
