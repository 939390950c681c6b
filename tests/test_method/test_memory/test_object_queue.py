"""The ring behaves as the list it stands for."""

from __future__ import annotations

import pytest
import torch

from s3pt_mm.common.host import Refusal
from s3pt_mm.method.memory import ObjectQueue, cycle_consistent_neighbours
from s3pt_mm.method.memory.neighbours import half_products, split_halves


def make(num_images: int = 4, slots: int = 3, channels: int = 5) -> ObjectQueue:
    return ObjectQueue(num_images=num_images, max_objects_per_image=slots, channels=channels)


def test_equals_a_list_of_images_over_many_pushes() -> None:
    queue, images = make(), []
    for step in range(40):
        batch = int(torch.randint(1, 7, ()))  # also larger than the queue
        counts = torch.randint(0, 4, (batch,))
        objects = torch.randn(2, int(counts.sum()), 5)
        queue.push(objects, counts)
        images = [*objects.split(counts.tolist(), dim=1), *images][:4]
        held = queue.flat_positions()
        wanted = torch.cat(images, dim=1)
        for view in (0, 1):
            torch.testing.assert_close(queue.take(view, held), wanted[view])
        assert queue.counts.tolist()[: len(images)] == [image.shape[1] for image in images], step
        norms = queue.take(0, held).norm(dim=1)
        torch.testing.assert_close(queue.inverse_norms[0, held] * norms, torch.ones(len(held)))


def test_empty_and_partly_filled_queue() -> None:
    queue = make()
    objects = torch.randn(2, 3, 5)
    near = cycle_consistent_neighbours(objects, objects, queue)
    assert not near.consistent.any() and near.positions.shape == (2, 3)
    queue.push(objects, torch.tensor([3]))
    # A queue that holds this very batch: everybody finds itself, and the way back ends there.
    near = cycle_consistent_neighbours(objects, objects, queue)
    assert near.consistent.all()
    for view in (0, 1):
        torch.testing.assert_close(queue.take(view, near.positions[view]), objects[view])


def test_no_objects_at_all() -> None:
    queue = make()
    none = torch.zeros(2, 0, 5)
    queue.push(none, torch.tensor([0, 0]))
    assert len(queue) == 0 and queue.spans() == []
    near = cycle_consistent_neighbours(none, none, queue)
    assert near.positions.shape == near.consistent.shape == (2, 0)


@pytest.mark.parametrize('refused', [False, True])
def test_a_step_that_the_device_decides_on(refused: bool) -> None:
    """Nobody waits for the verdict until somebody looks; then the queue is as if it were known."""
    known, open_ = make(), make()
    asked = []

    def read() -> torch.Tensor:
        asked.append(True)
        return torch.tensor([float(refused)])

    for step in range(3):
        torch.manual_seed(step)
        objects, counts = torch.randn(2, 3, 5), torch.tensor([2, 1])
        for queue in (known, open_):
            queue.stage(objects, counts)
        (known.forget if refused else known.commit)()
        open_.commit(Refusal(torch.tensor([float(refused)]), read))
        assert len(asked) == step  # the step before this one's
    state, wanted = open_.state_dict(), known.state_dict()
    assert len(asked) == 3 and all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert len(open_) == len(known) == (0 if refused else 6) and len(asked) == 3


def test_state_survives_a_checkpoint() -> None:
    queue, other = make(), make()
    queue.push(torch.randn(2, 4, 5), torch.tensor([1, 3]))
    other.load_state_dict(queue.state_dict())
    assert other.spans() == queue.spans() and torch.equal(other.objects, queue.objects)


@pytest.mark.parametrize('wrong', [dict(num_images=0), dict(slots=0), dict(channels=-1)])
def test_sizes_below_one_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match='at least 1'):
        make(**wrong)


def test_it_takes_no_more_memory_than_two_views_need() -> None:
    assert make().objects.shape == (2, 4 * 3, 5)


def test_errors_name_the_numbers() -> None:
    with pytest.raises(ValueError, match='4 objects, the queue has room for 3'):
        make().push(torch.randn(2, 4, 5), torch.tensor([4]))
    with pytest.raises(ValueError, match='counts of sum 5'):
        make().push(torch.randn(2, 4, 5), torch.tensor([2, 3]))
    with pytest.raises(ValueError, match="'int8'"):
        ObjectQueue(num_images=1, max_objects_per_image=1, channels=1, dtype='int8')


@pytest.mark.parametrize('deviation', [1.0, 1e-3])
def test_halves_err_as_float32_does(deviation: float) -> None:
    """Against float64: two float16 products are as near as one in float32, and find the same."""
    torch.manual_seed(0)
    rows = torch.randn(4000, 384).mul_(deviation).half()
    unit = torch.nn.functional.normalize(torch.randn(300, 384), dim=1)
    unit[0] = 0.0
    unit[0, :2] = torch.tensor([1.0, 1e-4])  # one large number must not drown a small one
    truth = unit.double() @ rows.double().T * 1024
    size = rows.double().norm(dim=1) * 1024
    error = (half_products(split_halves(unit), rows).double() - truth).abs() / size
    plain = (unit @ rows.float().T * 1024).double().sub(truth).abs() / size
    assert error.max() < 2 * plain.max() and error.max() < 5e-7
    found = half_products(split_halves(unit), rows).argmax(1)
    top = truth.topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1]) > 1e-5 * size.mean()
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], truth.argmax(1)[clear])
