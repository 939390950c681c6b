"""The learning rate at the protocol's first and last iteration."""

import pytest
import torch
from mmengine.optim.scheduler import PolyLR

from s3pt_mm.segmentation.schedule import PolyLRToFraction


def run(scheduler_type, lr, steps, **settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = scheduler_type(optimizer, power=0.9, begin=0, end=steps, by_epoch=False, **settings)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize('lr', [8e-4, 3e-4, 8e-5])
def test_ends_at_a_tenth_and_follows_the_polynomial(lr):
    values = run(PolyLRToFraction, lr, 1000)
    assert values[0] == lr and values[-1] == pytest.approx(lr / 10)
    for step in (1, 250, 700):
        expected = 0.9 * lr * (1 - step / 999) ** 0.9 + 0.1 * lr
        assert values[step] == pytest.approx(expected, rel=1e-9)


def test_equals_mmengine_with_that_floor():
    assert run(PolyLRToFraction, 1e-3, 50) == pytest.approx(run(PolyLR, 1e-3, 50, eta_min=1e-4))


def test_state_resumes():
    whole = run(PolyLRToFraction, 1e-3, 20)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    make = lambda: PolyLRToFraction(optimizer, power=0.9, begin=0, end=20, by_epoch=False)
    first = make()
    for _ in range(8):
        optimizer.step()
        first.step()
    states = optimizer.state_dict(), first.state_dict()
    second = make()
    optimizer.load_state_dict(states[0])
    second.load_state_dict(states[1])
    for step in range(8, 20):
        assert optimizer.param_groups[0]['lr'] == pytest.approx(whole[step])
        optimizer.step()
        second.step()
