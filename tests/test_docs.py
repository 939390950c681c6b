"""Code that the docs print, run as printed."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from s3pt_mm.data.formats import FORMATS
from tests.nuscenes_tables import write_jpeg


def code_of(page: Path, language: str = 'python') -> list[str]:
    """Fenced blocks of a language, in order."""
    return re.findall(rf'```{language}\n(.*?)```', page.read_text(), re.S)


def test_add_a_format(repository, tmp_path, monkeypatch):
    monkeypatch.setattr('s3pt_mm.data.formats.FORMATS', dict(FORMATS))
    names: dict = {'__name__': 'page'}
    exec(code_of(repository / 'docs' / 'add_a_format.md')[0], names)
    write_jpeg(tmp_path / 'front_12.5.jpg', 0, 320, 180)
    log = names['DashCam'](tmp_path, argparse.Namespace(focal=800.0))
    (sample,) = log.samples()
    assert sample.timestamp == 12.5
    assert np.shape(sample.images['front'].cam2img) == (3, 3)
