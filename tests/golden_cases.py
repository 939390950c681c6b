"""One loader for golden numbers: every file of a form, here or in ``S3PT_GOLDEN_DIR``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent / 'golden'
FORMS = (
    'joint_view_clustering*.npz',
    'neighbour_retrieval*.npz',
    'losses*.npz',
    'dino_multicrop_loss*.npz',
    'vmf_log_normalizer*.npz',
)


def golden_cases(form: str) -> list:
    """Pytest parameters, one a file; their ids are the file names.

    A folder without any golden file gives a case that fails: comparing nothing is no success.
    """
    assert form in FORMS, form
    folder = Path(os.environ.get('S3PT_GOLDEN_DIR', HERE))
    files = sorted(folder.glob(form))
    if files:
        return [pytest.param(path, id=path.name) for path in files]
    if any(list(folder.glob(other)) for other in FORMS):
        reason = f'{folder} holds golden files, but none of the form {form}'
        return [pytest.param(None, id=f'no-{form}', marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(folder / form, id=f'empty-folder-{form}')]


def load(path: Path) -> dict[str, np.ndarray]:
    """Arrays of one file; fails on the placeholder of an empty folder."""
    if not path.is_file():
        pytest.fail(f'no golden file {path.name} in {path.parent}')
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def compare(
    actual: Mapping[str, object],
    wanted: Mapping[str, np.ndarray],
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """All arrays of ``actual`` against those of the same names; booleans and integers exactly."""
    for name, value in actual.items():
        value = np.asarray(value)
        assert value.shape == wanted[name].shape, f'{name}: {value.shape} != {wanted[name].shape}'
        if wanted[name].dtype.kind in 'biu':
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, wanted[name], rtol=rtol, atol=atol, err_msg=name)


def assert_detects_shift(
    actual: Mapping[str, object], wanted: Mapping[str, np.ndarray], **tolerances: float
) -> None:
    """The comparison is worth something: any float array of it shifted by 1 % must fail."""
    for name in actual:
        if wanted[name].dtype.kind != 'f':
            continue
        with pytest.raises(AssertionError):
            compare({name: actual[name]}, {name: wanted[name] * 1.01}, **tolerances)
