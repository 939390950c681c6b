"""The host's clock and the device's, run over what a step asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """An H100 and its host.

    The host's times are those with which the code that the card ran on 2026-11-27 comes out as it
    was measured: 67 ms as shipped (64 and 82), 38 ms with CUDA graphs (38.8). Other choices that
    do so too move today's figures by two milliseconds.

    Attributes:
        products: FLOP/s of large half-precision products.
        single: The same in float32.
        bandwidth: Bytes/s.
        kernel: Seconds that the smallest kernel takes.
        launch: Seconds of the host for a kernel launched from C++ (backward, optimiser).
        python: The same with Python in front (forward).
        replay: Seconds of the host for a CUDA graph.
        between: Seconds of the host between two steps: hooks, loop, the batch.
    """

    products: float = 400e12
    single: float = 40e12
    bandwidth: float = 2.5e12
    kernel: float = 2.5e-6
    launch: float = 16e-6
    python: float = 32e-6
    replay: float = 1e-3
    between: float = 1.5e-3


@dataclass
class Event:
    """One thing that the host did: a kernel of ``seconds`` on the device, a wait, a mark."""

    kind: str
    seconds: float = 0.0
    count: int = 1
    where: str = ''
    graph: str | None = None
    number: int | None = None


@dataclass
class Estimate:
    """Of one step.

    Attributes:
        step, busy, host: Milliseconds from end to end, of the device's work, of the host's.
        launches: What the host launches, graphs counted once.
        kernels: As if nothing were replayed or fused.
        waits: Of the host.
        idle: Where the device waits for the host longest, and milliseconds.
    """

    step: float
    busy: float
    host: float
    launches: int
    kernels: int
    waits: int
    idle: dict[str, float]


def play(
    events: list[Event], machine: Machine, graphs: dict[str, float], steps: int = 3
) -> Estimate:
    """Run both clocks over ``steps`` equal steps; figures are of the last one.

    Args:
        events: Of a step.
        machine: Whose times.
        graphs: Seconds on the device of what is replayed as one; what is not named runs kernel by
            kernel.
        steps: Enough to settle.
    """
    host = there = 0.0
    idle: dict[str, float] = {}
    for _ in range(steps):
        begin, busy, work, launches, waits, last = there, 0.0, 0.0, 0, 0, None
        marks: dict[int | None, float] = {}
        idle = {}
        host += machine.between
        for event in events:
            cost = seconds = 0.0
            if event.kind == 'mark':
                marks[event.number] = there
            elif event.kind == 'wait':
                # An event that this step has not seen is one of the step before, which is through.
                until = there if event.number is None else marks.get(event.number, begin)
                host, waits, cost = max(host, until), waits + 1, machine.launch
            elif event.graph in graphs:
                if event.graph != last:
                    cost, seconds, launches = machine.replay, graphs[event.graph], launches + 1
            else:
                in_python = event.where.partition(':')[0] != 'autograd and optimiser'
                cost = event.count * (machine.python if in_python else machine.launch)
                seconds, launches = event.seconds, launches + event.count
            if event.kind == 'kernel':
                last = event.graph
            host, work = host + cost, work + cost
            if seconds:
                if host > there:
                    where = event.graph or event.where.partition(':')[0]
                    idle[where] = idle.get(where, 0.0) + 1e3 * (host - there)
                there, busy = max(host, there) + seconds, busy + seconds
    longest = dict(sorted(idle.items(), key=lambda item: -item[1])[:8])
    kernels = sum(event.count for event in events if event.kind == 'kernel')
    times = (1e3 * seconds for seconds in (there - begin, busy, work + machine.between))
    return Estimate(*times, launches, kernels, waits, longest)
