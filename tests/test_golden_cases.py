"""``S3PT_GOLDEN_DIR``: other shapes pass, an empty folder fails, one shifted array fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.golden_cases import FORMS, HERE, golden_cases
from tests.reference.golden import write_folder
from tests.test_method.test_clustering import test_joint_view_golden as clustering
from tests.test_method.test_losses import test_losses_golden as losses
from tests.test_method.test_memory import test_neighbours_golden as memory

CHECKS = {
    'joint_view_clustering*.npz': clustering.test_matches_reference,
    'neighbour_retrieval*.npz': memory.test_matches_reference,
    'losses*.npz': lambda path: losses.test_cribo_losses(path, 16),
    'dino_multicrop_loss*.npz': losses.test_dino_multicrop,
    'vmf_log_normalizer*.npz': lambda path: losses.test_vmf_log_normalizer(path, False),
}
OUTPUTS = {
    'joint_view_clustering*.npz': 'assignments_m_b_n_k centroids_view1 centroids_view2',
    'neighbour_retrieval*.npz': 'neighbours_of_view1 neighbours_of_view2 queue_after',
    'losses*.npz': 'loss_cls loss_centroid loss_neighbour center_after center_c_after',
    'dino_multicrop_loss*.npz': 'loss student_logits_grad center_after',
    'vmf_log_normalizer*.npz': 'log_c dlog_c_dkappa',
}
SHIFTS = [(form, name) for form, names in OUTPUTS.items() for name in names.split()]


@pytest.fixture(scope='module')
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golden files of other shapes, written by the plain reference."""
    folder = tmp_path_factory.mktemp('golden')
    write_folder(folder, seed=1)
    return folder


def test_every_form_has_its_check() -> None:
    assert set(CHECKS) == set(OUTPUTS) == set(FORMS)


@pytest.mark.parametrize('form', FORMS)
def test_another_folder_is_read_and_its_files_are_named(
    form: str, other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = golden_cases(form)
    monkeypatch.setenv('S3PT_GOLDEN_DIR', str(other_folder))
    (case,) = golden_cases(form)
    assert case.id == form.replace('*', '_other') and case.id not in [c.id for c in shipped]
    CHECKS[form](*case.values)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('exists', [True, False], ids=['empty', 'absent'])
def test_a_folder_without_golden_files_fails(
    form: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path if exists else tmp_path / 'absent'
    monkeypatch.setenv('S3PT_GOLDEN_DIR', str(folder))
    (case,) = golden_cases(form)
    assert not case.marks
    with pytest.raises(pytest.fail.Exception, match='no golden file'):
        CHECKS[form](*case.values)


@pytest.mark.parametrize(('form', 'name'), SHIFTS, ids=[f'{f[:6]}-{n}' for f, n in SHIFTS])
def test_an_array_shifted_by_one_per_cent_fails(form: str, name: str, tmp_path: Path) -> None:
    shipped = sorted(HERE.glob(form))[0]
    with np.load(shipped) as arrays:
        content = dict(arrays)
    content[name] = content[name] * 1.01
    path = tmp_path / shipped.name
    np.savez(path, **content)
    with pytest.raises(AssertionError):
        CHECKS[form](path)
