"""How many rows may have their large temporaries at once: the one setting for memory, in rows."""

from __future__ import annotations

import torch

_GIGABYTE = 1e9
# Of a device's memory, what the temporaries of one part may take: beside weights, gradients,
# activations and the queue, a sixteenth is some gigabytes on a data-centre card.
_SHARE = 1 / 16
# Rows come in multiples of this, so that few different shapes occur.
_MULTIPLE = 64


def row_limit(memory: str | float, device: torch.device, *, on_cpu: int, bytes_per_row: int) -> int:
    """Rows at a time whose temporaries fit; changes memory and speed, never a result.

    Args:
        memory: 'auto' takes a sixteenth of an accelerator's memory and ``on_cpu`` rows on a CPU,
            where more than its cache holds is slower. A number is gigabytes (1e9 bytes), on any
            device.
        device: Where the rows are.
        on_cpu: Rows on a CPU.
        bytes_per_row: Of all temporaries of one row.

    Raises:
        ValueError: If ``memory`` is neither 'auto' nor positive.
    """
    if memory == 'auto':
        if device.type == 'cpu':
            return on_cpu
        properties = torch.get_device_module(device).get_device_properties(device)
        available = properties.total_memory * _SHARE
    elif isinstance(memory, (int, float)) and memory > 0:
        available = memory * _GIGABYTE
    else:
        raise ValueError(f"memory must be 'auto' or gigabytes over 0, got {memory!r}")
    return max(int(available / bytes_per_row) // _MULTIPLE, 1) * _MULTIPLE


def padding(rows: int, device: torch.device) -> int:
    """Rows to add so that shapes repeat from step to step; none on a CPU, where each row costs."""
    return 0 if device.type == 'cpu' else -rows % _MULTIPLE
