"""Batches from any position, with the data's randomness fenced off and dead workers replaced."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from mmengine.logging import print_log
from torch.utils.data import DataLoader

from s3pt_mm.resume.keyed_sampler import KeyedSampler
from s3pt_mm.resume.random_state import fenced_randomness


def keyed_sampler_of(dataloader: DataLoader, loop_name: str) -> KeyedSampler:
    """The loader's :class:`KeyedSampler`.

    Raises:
        TypeError: The loader samples in another way, so it cannot start in mid-epoch.
    """
    if not isinstance(dataloader.sampler, KeyedSampler):
        raise TypeError(
            f'{loop_name} resumes anywhere in an epoch and therefore needs '
            "train_dataloader.sampler = dict(type='KeyedSampler', shuffle=True) and no custom "
            f'batch_sampler; found sampler {type(dataloader.sampler).__name__} and batch sampler '
            f'{type(dataloader.batch_sampler).__name__}.'
        )
    return dataloader.sampler


def keyed_batches(
    dataloader: DataLoader, *, start: int, key: tuple[int, ...], max_worker_restarts: int = 10
) -> Generator[tuple[int, Any], None, None]:
    """Iterates ``(index, batch)`` over the loader's epoch (or stream), from batch ``start`` on.

    * The model's generators are left alone: opening a loader draws a seed, and with
      ``num_workers=0`` the transforms draw in this very process. Inside, generators start from
      (key, index), so even a pipeline without ``SeedFromIndex`` is repeatable in-process.
    * When a worker process dies (killed, out of memory), the workers are started anew at the same
      batch. Samples are keyed by index, so the data does not change. An exception *raised* by the
      data set in a healthy worker is not a death and passes through.

    Args:
        dataloader: With a :class:`KeyedSampler` whose epoch is set.
        start: First batch.
        key: Non-negative integers, e.g. (seed, rank, epoch).
        max_worker_restarts: Deaths tolerated in this iteration before giving up.

    Raises:
        RuntimeError: More deaths than ``max_worker_restarts``.
    """
    deaths = 0
    index = start
    iterator: Any = None
    while True:
        try:
            if iterator is None:
                iterator = _open(dataloader, index, key)
            with fenced_randomness(*key, index):
                batch = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            # Of an epoch that does not open: persistent workers, which died after the last one.
            dead = _dead_workers(iterator or getattr(dataloader, '_iterator', None))
            if not dead:
                raise
            deaths += 1
            if deaths > max_worker_restarts:
                raise RuntimeError(
                    f'data workers died {deaths} times since batch {start} (last: '
                    f'{", ".join(dead)}); the usual '
                    'cause is memory: lower train_dataloader.num_workers or batch_size, or enlarge '
                    '/dev/shm.'
                ) from error
            print_log(
                f'Data worker {", ".join(dead)} died before batch {index}; starting all workers '
                f'anew '
                f'({deaths} of at most {max_worker_restarts} times).',
                logger='current',
                level=logging.WARNING,
            )
            iterator = None
            dataloader._iterator = None  # persistent workers live in the loader
            continue
        yield index, batch
        index += 1


def one_ahead(
    batches: Generator[tuple[int, Any], None, None], send: Callable[[Any], Any]
) -> Generator[tuple[int, Any], None, None]:
    """Iterates as ``batches`` does; the next batch is read and sent before one is handed out.

    What a batch does not depend on is when it was read: the position of a run is what the loop has
    finished. An error comes in the place of its own batch, after those in front of it.

    Args:
        batches: :func:`keyed_batches`.
        send: Starts a batch's way to the device and gives what stands for it there.
    """
    held: tuple[int, Any] | None = None
    try:
        while True:
            coming, failure = None, None
            try:
                index, batch = next(batches)
                coming = index, send(batch)
            except StopIteration:
                pass
            except Exception as error:
                failure = error
            if held is not None:
                yield held
            if failure is not None:
                raise failure
            if coming is None:
                return
            held = coming
    finally:
        batches.close()


def ignore_worker_signals() -> None:
    """Takes torch's SIGCHLD handler out of this process.

    That handler raises at whatever line the main thread happens to execute, for example between the
    optimiser's step and the teacher's. Without it a dead worker is noticed where it matters, when
    the next batch is asked for (at most five seconds later).
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _open(dataloader: Any, index: int, key: tuple[int, ...]) -> Iterator[Any]:
    dataloader.sampler.set_start(index * dataloader.batch_sampler.batch_size)
    with fenced_randomness(*key, index):
        iterator = iter(dataloader)
    ignore_worker_signals()
    return iterator


def _dead_workers(iterator: Any) -> list[str]:
    """Descriptions of worker processes that have ended, e.g. ``pid 17 (exit code -9)``."""
    dead = []
    for worker in getattr(iterator, '_workers', []):
        worker.join(timeout=0.05)  # a broken connection can be seen before the death itself
        if not worker.is_alive():
            dead.append(f'pid {worker.pid} (exit code {worker.exitcode})')
    return dead
