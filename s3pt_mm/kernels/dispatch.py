"""Which form of an operation runs: one place, by the option and the tensors' device."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

import torch

IMPLEMENTATIONS = ('plain', 'kernel')

# Operation and device -> module of the fast form. Where there is none the plain form runs.
_KERNELS = {
    ('dropout_attention', 'cpu'): 's3pt_mm.kernels.dropout_attention',
    ('cross_entropy', 'cuda'): 's3pt_mm.kernels.cross_entropy',
}


def kernel_for(operation: str, device: torch.device, implementation: str) -> ModuleType | None:
    """Module with the fast form, or None: take the plain one.

    Args:
        operation: 'dropout_attention' or 'cross_entropy'.
        device: Where the tensors are.
        implementation: 'plain', or 'kernel': the fast form if this device has one.

    Raises:
        ValueError: For another ``implementation``.
        ImportError: A kernel is asked for that needs Triton, which is not installed.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f'implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}')
    # Triton's interpreter runs the CUDA kernels on a CPU, for tests.
    interpreted = operation == 'cross_entropy' and os.environ.get('TRITON_INTERPRET') == '1'
    name = _KERNELS.get((operation, 'cuda' if interpreted else device.type))
    if implementation == 'plain' or name is None:
        return None
    if operation == 'cross_entropy' and importlib.util.find_spec('triton') is None:
        raise ImportError("cross_entropy='kernel' needs Triton: pip install triton, or use 'plain'")
    return importlib.import_module(name)
