"""Runs a function as several gloo processes on this machine, with a deadline."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# The server imports once; every rank is a fork of it, which saves seconds a rank.
_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['tests.test_reliability.rank_training'])


class RanksFailed(AssertionError):
    """A rank raised, died or was still running at the deadline; the message holds every rank's
    end."""


def run_ranks(
    function: Callable[..., Any], world_size: int, folder: Path, *args: Any, timeout: float = 90
) -> list[Any]:
    """``[function(*args) on rank 0, ... on rank world_size - 1]`` inside a gloo process group.

    Args:
        function: Importable (top level of a module). Its result must be readable by
            ``torch.load(weights_only=True)``.
        world_size: Number of processes.
        folder: Where the ranks meet and leave their results.
        args: Passed on.
        timeout: Seconds for everything.

    Raises:
        RanksFailed: See the class.
    """
    start_ranks(_in_group, world_size, folder, function, folder, args, timeout=timeout)
    return [torch.load(folder / f'rank{r}.pt', weights_only=True) for r in range(world_size)]


def start_ranks(
    function: Callable[..., Any], world_size: int, folder: Path, *args: Any, timeout: float = 90
) -> None:
    """``function(*args)`` in processes with torchrun's variables, but for the meeting place.

    Args, raises: As :func:`run_ranks`, which makes the process group too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processes = [
        _CONTEXT.Process(target=_rank, args=(function, rank, world_size, folder, args), daemon=True)
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout
    while any(p.is_alive() for p in processes) and time.monotonic() < deadline:
        if any(p.exitcode not in (None, 0) for p in processes):
            time.sleep(1)  # the others usually notice by themselves
            break
        time.sleep(0.02)
    codes = [p.exitcode for p in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
    if codes != [0] * world_size:
        ends = [
            f'rank {rank} (exit code {code if code is not None else "none: still running"}):\n'
            + (error.read_text() if (error := folder / f'rank{rank}.error').exists() else '')
            for rank, code in enumerate(codes)
        ]
        raise RanksFailed('\n'.join(ends))


def _rank(function: Callable, rank: int, world_size: int, folder: Path, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    try:
        function(*args)
    except BaseException:
        (folder / f'rank{rank}.error').write_text(traceback.format_exc())
        raise


def _in_group(function: Callable, folder: Path, args: tuple) -> None:
    rank, world_size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=world_size
    )
    torch.save(function(*args), folder / f'rank{rank}.pt')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
