"""The notebook of the docs, executed."""

from __future__ import annotations

import os

import nbformat
import pytest
from nbclient import NotebookClient


@pytest.mark.slow
def test_notebook(repository, tmp_path, monkeypatch):
    monkeypatch.setenv(
        'PYTHONPATH', os.pathsep.join([str(repository), os.environ.get('PYTHONPATH', '')])
    )
    monkeypatch.delenv('MPLBACKEND', raising=False)  # inline pictures
    notebook = nbformat.read(repository / 'docs' / 'notebooks' / 'toydrive.ipynb', as_version=4)
    NotebookClient(notebook, timeout=600, resources={'metadata': {'path': str(tmp_path)}}).execute()
    printed = str(notebook.cells[-1].outputs)
    assert 'mIoU' in printed and 'place' in printed  # figures with their controls
    assert any('image/png' in str(cell.outputs) for cell in notebook.cells if 'outputs' in cell)
