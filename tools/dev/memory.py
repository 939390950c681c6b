"""Bytes that a piece of code has allocated at its worst moment, above those it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Peak of the allocator while ``function`` runs, minus its level before.

    On a GPU the allocator keeps that figure. On a CPU it is the running sum of every allocation
    and release that the profiler saw: exact and repeatable, unlike the resident size of the
    process, which keeps what malloc has not given back.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    level = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak
