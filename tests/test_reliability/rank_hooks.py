"""What hooks do on several ranks, without a runner around them."""

from __future__ import annotations

import logging
from types import SimpleNamespace

from mmengine.dist import get_rank

from s3pt_mm.resume.divergence import DivergenceHook, TrainingDiverged


def watch_collapse(folder: str, entropies: list[list[float]]) -> dict:
    """Iterations that this rank does before the hook stops it; it sees its own entropies only."""
    hook = DivergenceHook(collapse='stop', patience=2, begin=0)
    runner = SimpleNamespace(
        iter=0,
        epoch=0,
        work_dir=folder,
        logger=logging.getLogger(__name__),
        message_hub=SimpleNamespace(log_scalars={}),
    )
    said = ''
    try:
        for runner.iter, values in enumerate(entropies):
            hook.after_train_iter(runner, 0, None, dict(teacher_entropy=values[get_rank()]))
    except TrainingDiverged as error:
        said = str(error)
    return dict(iteration=runner.iter, said=said)
