"""Between host and accelerator without making either wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A host tensor on ``device``; the host does not wait for the copy (CUDA: pinned memory).

    The caching host allocator keeps the pinned block until the copy is through.
    """
    device = torch.device(device)
    if device.type == 'cuda' and tensor.device.type == 'cpu':
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=tensor.device.type == 'cpu')


def fetch(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin a copy to the host; the function that is returned waits for it and gives it.

    It waits for what was asked of the device before, and not for what was asked since: a host that
    reads late finds the device busy with the next work.
    """
    if tensor.device.type == 'cpu':
        return lambda: tensor
    here = tensor.to('cpu', non_blocking=True)  # pinned
    arrived = torch.get_device_module(tensor.device).Event()
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return here

    return wait


class Refusal(NamedTuple):
    """Whether the optimiser's kernel leaves the step out, which a loss scaler lets it decide.

    Attributes:
        flag: () or (1,) on the device, above 0 if so: for those who can obey it there.
        read: Waits for it on the host: for those who cannot, as late as they can.
    """

    flag: Tensor
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, flag: Tensor) -> Refusal:
        """Its copy to the host begins now."""
        return cls(flag, fetch(flag))


class Scalars(Mapping[str, Tensor]):
    """Scalars of any device as scalars on the host: under way at once, awaited when one is read.

    All travel as one copy. A step logs a dozen; from the device each would be a wait of its own.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = dict(values)
        remote = {name: value for name, value in values.items() if value.device.type != 'cpu'}
        self._remote = list(remote)
        if remote:
            self._arrive = fetch(torch.stack([v.detach().float() for v in remote.values()]))

    def __getitem__(self, name: str) -> Tensor:
        if self._remote:
            self._values.update(zip(self._remote, self._arrive().unbind(), strict=True))
            self._remote = []
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
