"""Compiled parts: whole graphs, none compiled twice, and the losses of the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo import utils

from s3pt_mm.method.algorithms import DINO, S3PT, TeacherStudent
from tests.test_method.test_algorithms.test_methods import batch, make, run_loss, total


@pytest.fixture(autouse=True)
def _without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take a minute: graphs are made and run as they are."""

    def compiled(self: TeacherStudent, function, graph=True):  # noqa: ANN001, ANN202
        if self.compile_mode is None:
            return function
        dynamic = False if graph else None
        return torch.compile(function, dynamic=dynamic, fullgraph=True, backend='aot_eager')

    monkeypatch.setattr(TeacherStudent, 'compiled', compiled)
    torch._dynamo.reset()
    utils.counters.clear()


@pytest.mark.slow
@pytest.mark.parametrize(('cls', 'graphs'), [(S3PT, 8), (DINO, 5)])
def test_graphs_do_not_break_and_losses_agree(cls: type[TeacherStudent], graphs: int) -> None:
    """Teacher and student, DINO's second resolution, clustering, vMF with and without
    gradient, the weight norm's gradient, and what is logged of teacher and clusters."""

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


@pytest.mark.slow
def test_half_precision_takes_the_fused_forms() -> None:
    """The image-level term and the objects' cross-entropy; the same losses and gradients."""
    found = []
    for mode in (None, 'default'):
        torch.manual_seed(0)
        model = make(S3PT, compile=mode, backbone='S3PTVisionTransformer')
        model.init_weights()
        model.epoch, calls = 1, []
        for name in ('_fused_slice', '_image_slice') if mode else ():
            form = getattr(model, name)

            def call(*args, form=form, name=name, calls=calls):  # noqa: ANN001, ANN002, ANN202
                calls.append(name)
                return form(*args)

            setattr(model, name, call)
        for step in range(2):  # the memory is empty in the first
            torch.manual_seed(step)
            with torch.autocast('cpu', torch.bfloat16):
                losses = run_loss(model, batch(2))
            total(losses).backward()
            model.update_teacher(0.99)
        gradients = [p.grad for p in model.student.parameters() if p.grad is not None]
        found.append((losses, torch.cat([g.flatten() for g in gradients])))
    assert calls == 2 * ['_image_slice', '_fused_slice']
    (plain, by_plain), (fused, by_fused) = found
    assert plain.keys() == fused.keys()
    for name, value in plain.items():
        torch.testing.assert_close(fused[name], value, rtol=0.01, atol=0.01, msg=name)
    assert (by_fused - by_plain).norm() / by_plain.norm() < 0.05
