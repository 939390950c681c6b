"""A nuImages folder of a few small images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nuimages_tables import write_nuimages


@pytest.fixture
def nuimages_root(tmp_path: Path) -> Path:
    root = tmp_path / 'nuimages'
    write_nuimages(root, 'v1.0-train', 5, seed=0)
    write_nuimages(root, 'v1.0-val', 3, seed=1)
    return root
