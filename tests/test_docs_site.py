"""The documentation's site, built strictly: a broken link or docstring fails."""

from __future__ import annotations

import pytest

from tests.tool_runs import run_tool
from tools.dev.docs_hooks import zoo


@pytest.mark.slow
def test_site(repository, tmp_path):
    run_tool(
        repository, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', tmp_path / 'site'
    )
    page = (tmp_path / 'site' / 'reference' / 'method' / 'index.html').read_text()
    assert 'cluster_joint_views' in page


def test_model_zoo_lists_every_metafile(repository):
    tables = zoo(repository)
    for config in ('configs/s3pt/vits16_nuscenes.py', 'configs/petr/vits16_nuscenes.py'):
        assert f'`{config}`' in tables
