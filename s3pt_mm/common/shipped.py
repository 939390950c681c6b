"""Where the configs and tools lie that come with the package: a checkout, or a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def shipped(name: str) -> Path:
    """A file or folder of ``configs/`` or ``tools/``, e.g. ``configs/s3pt``.

    A wheel carries them in ``s3pt_mm/.mim``, where OpenMMLab's ``mim`` looks; beside the package
    they lie in a checkout and with an editable install.

    Raises:
        FileNotFoundError: neither has it.
    """
    places = (PACKAGE / '.mim' / name, PACKAGE.parent / name)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f'{name} is neither {places[0]} nor {places[1]}: install s3pt_mm again')
