"""A launched run with all hooks, and one step of each probe, on the pretend accelerator."""

from __future__ import annotations

import pytest

from tests.test_pretend.test_pretraining import KERNELS, reports_of

pytestmark = pytest.mark.slow
# Waits of a probe: the host library's blocking copies of the batch, and what PETR's matching reads.
BUDGETS = {'linear': (75, 6), 'mask': (300, 6), 'petr': (860, 5)}


@pytest.fixture(scope='module')
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """One log a run."""
    return reports_of(tmp_path_factory.mktemp('pretend'), 'runs')


def test_two_epochs_with_all_hooks(reports: dict) -> None:
    run = reports['launched']
    assert run['files'] == ['epoch_1.pth', 'epoch_2.pth'] and run['teacher_moved'] and run['held']
    assert len(run['iterations']) == 8
    for iteration in run['iterations'][1:]:  # the first looks once whether there is depth at all
        assert not iteration['unawaited_copies']
        waits = iteration['synchronisations_by_place']
        assert iteration['synchronisations'] <= 4 + 2, waits
        assert iteration['kernels'] <= KERNELS['s3pt'], iteration['kernels_by_place'][:8]


def test_the_next_batch_travels_while_a_step_computes(reports: dict) -> None:
    """Of an epoch's four batches each is sent before the step in front of it begins."""
    epoch = ['sent', 'sent', 'step', 'awaited', 'sent', 'step', 'awaited', 'sent', 'step']
    epoch += ['awaited', 'step', 'awaited']
    run = reports['launched']
    assert run['story'] == 2 * epoch
    for iteration in run['iterations']:  # a step's own copies: indices that the host works out
        assert not any('token_fields' in place for place in iteration['copies_by_place'])
    assert reports['ahead'] == dict(poison=True, same=True, unsent='dict')


@pytest.mark.parametrize('name', BUDGETS)
def test_one_step_of_a_probe(reports: dict, name: str) -> None:
    report, (kernels, waits) = reports[name], BUDGETS[name]
    assert not report['unawaited_copies']
    assert report['synchronisations'] <= waits, report['synchronisations_by_place']
    assert report['kernels'] <= kernels, report['kernels_by_place'][:8]
