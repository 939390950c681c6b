"""Compiled parts: whole graphs, none compiled twice, and the losses of the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo import utils

from s3pt_mm.method.algorithms import DINO, S3PT, TeacherStudent
from tests.test_method.test_algorithms.test_methods import batch, make, run_loss, total


@pytest.mark.slow
@pytest.mark.parametrize(('cls', 'graphs'), [(S3PT, 7), (DINO, 4)])
def test_graphs_do_not_break_and_losses_agree(
    cls: type[TeacherStudent], graphs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher and student, DINO's second resolution, clustering, vMF with and without
    gradient, and what is logged of teacher and clusters."""

    def compiled(self: TeacherStudent, function, same_shapes=True):  # noqa: ANN001, ANN202
        if self.compile_mode is None:
            return function
        dynamic = False if same_shapes else None
        return torch.compile(function, dynamic=dynamic, fullgraph=True, backend='aot_eager')

    monkeypatch.setattr(TeacherStudent, 'compiled', compiled)  # inductor would take a minute
    torch._dynamo.reset()
    utils.counters.clear()
    found = []
    for mode in (None, 'default'):
        torch.manual_seed(0)
        model = make(cls, compile=mode, backbone='S3PTVisionTransformer')
        model.init_weights()
        model.epoch = 1
        lines = []
        for step in range(3):
            torch.manual_seed(step)  # drop path draws alike
            model.teacher_temperature = 0.04 + 0.01 * step
            model.position_weight = 1.0 + 0.5 * step  # schedules compile nothing anew
            losses = run_loss(model, batch(6 if cls is DINO else 2))
            total(losses).backward()
            model.update_teacher(0.99)
            lines.append(torch.stack([torch.as_tensor(v).detach() for v in losses.values()]))
        found.append(torch.stack(lines))
        gradients = [p.grad for p in model.student.parameters() if p.grad is not None]
        found.append(torch.cat([g.flatten() for g in gradients]))
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[3], rtol=1e-3, atol=1e-6)
    assert utils.counters['stats']['unique_graphs'] == graphs
