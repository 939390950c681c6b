"""Reading, writing and fencing off the random generators of this process."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """The states of python's, NumPy's and torch's global generators.

    Returns:
        Plain tensors, lists and numbers only, so that ``torch.load(weights_only=True)`` reads it:
        ``python`` (version, list of ints, gauss), ``numpy`` (name, keys int64, pos, has_gauss,
        gauss), ``torch`` uint8 and ``cuda``, a list of uint8 tensors, one per device (empty as
        long as this process has not used CUDA).
    """
    version, words, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    keys, position = numpy['state']['key'], numpy['state']['pos']
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return dict(
        python=[version, list(words), gauss],
        numpy=[
            numpy['bit_generator'],
            torch.from_numpy(keys.astype(np.int64)),
            position,
            numpy['has_gauss'],
            numpy['gauss'],
        ],
        torch=torch.get_rng_state(),
        cuda=cuda,
    )


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restores what :func:`get_random_state` returned, also after a trip to another device."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] and torch.cuda.is_available():
        for device, device_state in enumerate(state['cuda'][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state.cpu(), device)


def seed_cpu_generators(*key: int) -> None:
    """Seeds python, NumPy and torch (CPU) from non-negative integers, mixed."""
    words = np.random.SeedSequence(key).generate_state(4, np.uint32)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    # Not torch.manual_seed, which reaches for every CUDA device as well.
    torch.default_generator.manual_seed(int(words[2]) << 31 | int(words[3]) >> 1)


@contextmanager
def fenced_randomness(*key: int) -> Iterator[None]:
    """Whatever is drawn inside leaves the generators outside untouched.

    Args:
        key: If given, the generators start from this key inside.
    """
    state = get_random_state()
    try:
        if key:
            seed_cpu_generators(*key)
        yield
    finally:
        set_random_state(state)
