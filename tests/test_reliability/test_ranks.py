"""n ranks equal one process with the same total batch: losses, centres, queues, gradients,
weights."""

import multiprocessing
import os

import pytest
import torch

from tests.test_reliability.rank_hooks import watch_collapse
from tests.test_reliability.rank_training import IMAGES, tiny_model, train_steps
from tests.test_reliability.ranks import RanksFailed, run_ranks

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
EVERYBODY = [list(range(IMAGES))]
LAYOUTS = {
    'two_halves': [[0, 1, 2, 3], [4, 5, 6, 7]],
    'dealt_in_turn': [[0, 2, 4, 6], [1, 3, 5, 7]],
    'unequal': [[7, 0, 3, 5, 1], [6, 2, 4]],
    'four_ranks': [[0, 4], [1, 5], [2, 6], [3, 7]],
    'four_unequal': [[5], [1, 0, 3], [2, 6, 7], [4]],
}


def check(single, ranks):
    names = set(single['losses'][0])
    for rank in ranks:
        for ours, theirs in zip(rank['losses'], single['losses'], strict=True):
            for name in names:
                if name.startswith('loss') or name == 'cycle_share':
                    torch.testing.assert_close(
                        ours[name], theirs[name], **TOLERANCE, msg=lambda m, n=name: f'{n}: {m}'
                    )
        for ours, theirs in zip(rank['gradients'], single['gradients'], strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours:
                torch.testing.assert_close(
                    ours[name], theirs[name], **TOLERANCE, msg=lambda m, n=name: f'{n}: {m}'
                )
        for name, value in single['state'].items():
            if not name.startswith('queue.'):
                torch.testing.assert_close(
                    rank['state'][name], value, **TOLERANCE, msg=lambda m, n=name: f'{n}: {m}'
                )
    queues = [{n: v for n, v in rank['state'].items() if n.startswith('queue.')} for rank in ranks]
    for queue in queues[1:]:
        for name in queue:
            assert torch.equal(queue[name], queues[0][name]), f'{name} differs between ranks'
    if queues[0]:
        # Ranks push in rank order, one process in batch order: the same objects, images permuted.
        torch.testing.assert_close(
            contents(ranks[0]['state']), contents(single['state']), **TOLERANCE
        )
        assert sorted(queues[0]['queue.counts'].tolist()) == sorted(
            single['state']['queue.counts'].tolist()
        )


def contents(state):
    """Live object vectors of both views side by side, sorted."""
    objects = state['queue.objects']
    live = int(state['queue.head']) + torch.arange(int(state['queue.counts'].sum()))
    rows = torch.cat(list(objects[:, live % objects.shape[1]]), dim=1)
    return rows[torch.argsort(rows[:, 0])]


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('algorithm', ['S3PTDINO', 'CrIBo', 'S3PT'])
def test_ranks_equal_one_process(tmp_path, algorithm, layout):
    single = train_steps(algorithm, EVERYBODY)
    ranks = run_ranks(train_steps, len(LAYOUTS[layout]), tmp_path, algorithm, LAYOUTS[layout])
    check(single, ranks)
    if algorithm != 'S3PTDINO':
        assert single['losses'][-1]['cycle_share'] > 0, 'the cross-image term was not exercised'
        assert single['losses'][-1]['loss_cross_image'] > 0


@pytest.mark.parametrize('algorithm', ['CrIBo', 'S3PT'])
def test_a_rank_without_a_valid_object(tmp_path, algorithm):
    """Rank 1's only image shows different places in its two views: no cluster spans both."""
    options = ({'clustering': {'position_weight': 1e3, 'num_clusters': 2}}, 3, [3])
    single = train_steps(algorithm, EVERYBODY, *options)
    layout = [[0, 1, 2, 4, 5, 6, 7], [3]]
    ranks = run_ranks(train_steps, 2, tmp_path, algorithm, layout, *options)
    assert [float(step['objects_per_image']) for step in ranks[1]['losses']] == [0.0] * 3
    assert single['losses'][-1]['objects_per_image'] > 0
    check(single, ranks)


@pytest.mark.parametrize('algorithm', ['S3PTDINO', 'CrIBo', 'S3PT'])
def test_an_unequal_last_batch(tmp_path, algorithm):
    """An epoch's end: five images, three of them on rank 0 and two on rank 1."""
    single = train_steps(algorithm, EVERYBODY, last=[[0, 1, 2, 3, 4]])
    layout = LAYOUTS['two_halves']
    options = (algorithm, layout, None, 3, (), 1, [[4, 0, 2], [1, 3]])
    check(single, run_ranks(train_steps, 2, tmp_path, *options))


def test_no_valid_object_on_any_rank(tmp_path):
    options = ({'clustering': {'position_weight': 1e3, 'num_clusters': 2}}, 3, list(range(IMAGES)))
    single = train_steps('S3PT', EVERYBODY, *options)
    ranks = run_ranks(train_steps, 2, tmp_path, 'S3PT', LAYOUTS['two_halves'], *options)
    assert ranks[0]['losses'][-1]['objects_per_image'] == 0
    check(single, ranks)


def test_the_check_would_notice(tmp_path):
    """The default cost normalisation, over a rank's whole batch, is not the same on two ranks."""
    changes = {'clustering': {'cost_scope': 'batch'}}
    single = train_steps('S3PT', EVERYBODY, changes)
    ranks = run_ranks(train_steps, 2, tmp_path, 'S3PT', LAYOUTS['unequal'], changes)
    with pytest.raises(AssertionError):
        check(single, ranks)


@pytest.mark.parametrize('algorithm', ['S3PTDINO', 'CrIBo', 'S3PT'])
def test_accumulation_equals_the_larger_batch(algorithm):
    """Two micro-batches see one centre and move it once; losses over objects average two means."""
    whole = train_steps(algorithm, EVERYBODY, steps=1)
    parts = train_steps(algorithm, LAYOUTS['two_halves'], steps=1, accumulate=2)
    followed = [n for n in whole['state'] if 'center' in n or n.startswith('queue.')]
    for name in whole['state'] if algorithm == 'S3PTDINO' else followed:
        torch.testing.assert_close(parts['state'][name], whole['state'][name], **TOLERANCE)
    assert parts['state']['image_center.value'].abs().max() > 1e-3
    if algorithm == 'S3PTDINO':
        for name, gradient in whole['gradients'][0].items():
            torch.testing.assert_close(parts['gradients'][0][name], gradient, **TOLERANCE)


@pytest.mark.parametrize('algorithm', ['S3PTDINO', 'S3PT'])
def test_frozen_prototypes_leave_no_parameter_unused(tmp_path, algorithm):
    """DDP with ``find_unused_parameters=False`` trains through the freeze and after it."""
    options = (None, 3, (), 1, None, 2)
    single = train_steps(algorithm, EVERYBODY, *options)['state']
    start = tiny_model(algorithm).student['head'].image_prototypes.weight_v
    assert not torch.equal(single['student.head.image_prototypes.weight_v'], start)
    layout = LAYOUTS['two_halves']
    for rank in run_ranks(train_steps, 2, tmp_path, algorithm, layout, *options):
        for name, value in single.items():
            if not name.startswith('queue.'):
                torch.testing.assert_close(
                    rank['state'][name], value, **TOLERANCE, msg=lambda m, n=name: f'{n}: {m}'
                )


def die(at_rank):
    """A rank that the kernel kills while the others wait for it."""
    if torch.distributed.get_rank() == at_rank:
        os.kill(os.getpid(), 9)
    torch.distributed.barrier()


def test_a_rank_that_dies_ends_the_others(tmp_path):
    """Whether by themselves or by ``run_ranks``: it returns, and nobody is left."""
    before = set(multiprocessing.active_children())  # an earlier test's data workers, say
    with pytest.raises(RanksFailed, match=r'rank 1 \(exit code -9\)'):
        run_ranks(die, 3, tmp_path, 1, timeout=600)
    assert set(multiprocessing.active_children()) <= before


def test_ranks_agree_on_collapse(tmp_path):
    """One rank's images alone do not stop it while the other goes on; both stop together."""
    entropies = [[0.0, 2.0], [0.0, 2.0], [0.0, 2.0], [0.0, 1e-3], [1e-3, 0.0], [0.0, 0.0]]
    ranks = run_ranks(watch_collapse, 2, tmp_path, str(tmp_path), entropies)
    for found in ranks:
        assert found['iteration'] == 4
        assert found['said'].startswith('Iteration 5: collapse, teacher entropy')
    assert [path.name for path in (tmp_path / 'divergence').iterdir()] == ['iter_5.json']
