"""What all ranks of a run decide together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine import dist

from s3pt_mm.common.errors import explain
from s3pt_mm.resume.checkpoint_files import CheckpointError, newest_whole

T = TypeVar('T')


def agree(request: int) -> int:
    """The largest request of all ranks."""
    if dist.get_world_size() == 1:
        return request
    strongest = torch.tensor(request)
    dist.all_reduce(strongest, op='max')
    return int(strongest)


def on_main(action: Callable[[], T], *, folder: Path) -> T:
    """Do something on the main process; all get its result, or its error.

    Args:
        action: Its result can be pickled.
        folder: Of the checkpoints, to name the last good one.

    Raises:
        CheckpointError: On all ranks, if the action met it or an ``OSError``.
    """
    answer: list[Any] = [None, None]  # what came of it, and what went wrong
    if dist.is_main_process():
        try:
            answer[0] = action()
        except CheckpointError as error:
            answer[1] = str(error)
        except OSError as error:
            whole = newest_whole(folder)
            good = f'The last good checkpoint is {whole}' if whole else 'There is no checkpoint yet'
            answer[1] = f'Saving failed: {explain(error)} {good}; then continue with --resume.'
    dist.broadcast_object_list(answer)
    if answer[1]:
        raise CheckpointError(answer[1])
    return answer[0]
