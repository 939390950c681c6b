"""What one step at full size would take on a GPU, on paper: today's launches in their order.

``python -m tests.test_pretend.paper [CONFIG] [--images 32] [--objects 14 60] [--out FILE]``

The step of a shipped config runs on the pretend accelerator without any numbers (tensors of shapes
alone, so that full size costs nothing), with a full queue and a given number of valid objects an
image, half of which find a neighbour. Each kernel's time is its bytes over the bandwidth or its
products over the matrix speed, whichever is longer, and no less than a kernel takes; the parts that
``model.compile='reduce-overhead'`` replays are launched as one and take what they took on an
H100. Then two clocks run: the host launches, kernel by kernel, and waits where the code waits;
the device begins a kernel when it has been launched and the one before is through.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tests.test_pretend import device
from tests.test_pretend.clocks import Event, Machine, play
from tests.test_pretend.log import LOG, place

# Seconds of what is replayed, measured on an H100 at 32 images (docs/performance.md); the networks'
# 11.2 ms are shared out by their products.
GRAPHS = {
    '_tokens without gradient': 2.8e-3,
    '_tokens': 2.8e-3,
    '_tokens backward': 5.6e-3,
    'cluster_joint_views without gradient': 1.3e-3,
}


_GATHER = ('aten.index.', 'aten.index_select.', 'aten.gather.')


@dataclass
class Recorder:
    """Listens to the pretend accelerator and writes down a step's events."""

    machine: Machine
    events: list[Event] = field(default_factory=list)
    graph: str | None = None

    def __call__(self, kind: str, *what: Any) -> None:
        """As :class:`tests.test_pretend.log.Log` tells it."""
        if kind == 'kernel':
            name, count, *operation = what
            seconds = max(
                kernel_seconds(self.machine, name, *operation), count * self.machine.kernel
            )
            self.events.append(Event('kernel', seconds, count, place(), self.graph))
        elif kind == 'wait':
            self.graph = None
            self.events.append(Event('wait', where=place(), number=what[1]))
        else:
            self.events.append(Event('mark', number=what[0]))


def kernel_seconds(
    machine: Machine, name: str, func: Any, args: tuple, kwargs: dict, result: Any
) -> float:
    """The longer of bytes over bandwidth and products over matrix speed."""
    tensors = {id(t): t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)}
    read = sum(_bytes(tensor) for tensor in tensors.values())
    if name.startswith(_GATHER):  # of a large tensor only what is taken
        read += min(_bytes(result), _bytes(args[0])) - _bytes(args[0])
    flop, dtype = 0.0, torch.float16
    if name.startswith('attention'):
        query, key = args[0], args[1]
        flop = 4.0 * query.numel() * key.shape[-2] * (2.5 if 'backward' in name else 1)
    elif func is not None and func._overloadpacket in flop_registry:
        plain = torch.utils._pytree.tree_map(device.held, (args, kwargs))
        flop = flop_registry[func._overloadpacket](
            *plain[0], **plain[1], out_val=device.held(result)
        )
        halves = any(t.dtype in (torch.float16, torch.bfloat16) for t in tensors.values())
        dtype = torch.float16 if halves else torch.float32
    speed = machine.single if dtype == torch.float32 else machine.products
    return max(read / machine.bandwidth, flop / speed)


def _bytes(tensor: Tensor) -> int:
    held = device.held(tensor)
    return min(held.numel() * held.element_size(), held.untyped_storage().nbytes())


class _Edge(torch.autograd.Function):
    """The identity; what flows back through it tells ``notice``."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, notice: Callable[[], None]) -> Tensor:
        ctx.notice = notice
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.notice()
        return gradient, None


def marked(recorder: Recorder, function: Callable, graph: bool = True) -> Callable:
    """``function`` whose kernels, forward and backward, are marked as one graph each.

    What is no graph is fused: the search reads its products once, the vMF normaliser its norms; a
    cross-entropy's slice reads all products for the rows' statistics and for the gradient, those
    of which columns are wanted twice more (the rows' sums without the centre, the columns), and
    writes the gradient; health figures read the teacher's twice more.
    """
    if not graph:

        def fused(first: Tensor, *others: Any) -> Any:
            LOG.listeners.clear()
            result = function(first, *others)
            LOG.listeners.append(recorder)
            read, kernels = _bytes(first), 2
            if function.__name__ in ('fused_slice', 'health_and_slice'):
                read, kernels = 3 * read, 3 + 3 * len(others[2])  # read twice, a gradient written
                for one in others[2]:
                    read += (2 + 2 * one.wants_columns) * _bytes(one.products)
                if function.__name__ == 'health_and_slice':
                    read, kernels = read + 2 * _bytes(others[2][0].products), kernels + 4
            if function.__name__ == 'through_weight_norm':
                read = 3 * read  # the direction's bytes are the gradient's, which is written too
            seconds = read / recorder.machine.bandwidth
            recorder.events.append(Event('kernel', seconds, kernels, function.__name__))
            return result

        return fused

    def call(*args: Any, **kwargs: Any) -> Any:
        learning = torch.is_grad_enabled()
        name = f'{function.__name__}{"" if learning else " without gradient"}'

        def set_to(graph: str | None) -> Callable[[], None]:
            return lambda: setattr(recorder, 'graph', graph)

        if learning:
            args = tuple(
                _Edge.apply(value, set_to(None))
                if isinstance(value, Tensor) and value.requires_grad
                else value
                for value in args
            )
        recorder.graph = name
        result = function(*args, **kwargs)
        recorder.graph = None
        if isinstance(result, Tensor) and result.requires_grad:
            result = _Edge.apply(result, set_to(f'{name} backward'))
        return result

    return call


def step(config: str, images: int, objects: int, machine: Machine) -> list[Event]:
    """The events of one optimiser step of a shipped pre-training config at full size."""
    from mmengine.config import Config
    from mmpretrain.registry import MODELS

    from s3pt_mm.method.algorithms.teacher_student import TeacherStudent
    from tests.test_pretend.steps import ROOT, batch, hooked

    recorder = Recorder(machine)
    TeacherStudent.compiled = lambda _, function, **shapes: marked(recorder, function, **shapes)
    cfg = Config.fromfile(ROOT / 'configs' / config)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.model.compile = 'reduce-overhead'
    model = MODELS.build(cfg.model)
    device.HELD = 'meta'
    device.DeviceTensor.is_cuda = True  # the search in two halves is for tensor cores
    device.ANSWER = lambda asked: answer(asked, objects)
    device.move(model)
    model._depth_checked = True  # a look at numbers, once a run
    model.queue.counts.fill_(objects)
    with device.Everywhere():
        runner, guard, teacher = hooked(model, cfg)
        model.epoch = 1
        for number in range(2):
            data = model.data_preprocessor.send_ahead(batch(images, 2, number))
            recorder.events.clear()
            LOG.clear()
            LOG.listeners[:] = [recorder]
            logged = model.train_step(data, runner.optim_wrapper)
            recorder.graph = None
            guard.after_train_iter(runner, 0, outputs=logged)
            dict(logged.items())
            teacher.after_train_iter(runner, 0)
    return recorder.events


def answer(asked: Tensor, objects: int) -> Tensor:
    """What the host reads: ``objects`` valid clusters an image, every second with a neighbour."""
    here = torch.zeros(asked.shape, dtype=asked.dtype)
    if asked.dtype in (torch.bool, torch.uint8) and asked.dim() == 2:
        if len(asked) == 2:
            here[:, ::2] = 1
        else:
            here[:, :objects] = 1
    return here


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', default='s3pt/vits16_nuscenes.py')
    parser.add_argument('--images', type=int, default=32)
    parser.add_argument('--objects', type=int, nargs='+', default=[14, 60])
    parser.add_argument('--out', type=Path, help='JSON')
    arguments = parser.parse_args()
    from tests.test_pretend.steps import settle

    settle()
    machine, found = Machine(), {}
    for objects in arguments.objects:
        events = step(arguments.config, arguments.images, objects, machine)
        estimate = play(events, machine, GRAPHS)
        found[objects] = asdict(estimate)
        print(
            f'{arguments.images} images, {objects} objects an image: '
            f'step {estimate.step:.1f} ms, device {estimate.busy:.1f}, '
            f'host {estimate.host:.1f}, '
            f'{estimate.launches} launches, {estimate.kernels} kernels, {estimate.waits} waits'
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))
