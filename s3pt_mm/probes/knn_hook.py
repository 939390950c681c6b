"""Does the run learn? Dense k-NN segmentation with the frozen teacher, every n epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from s3pt_mm.common.files import write_json
from s3pt_mm.common.models import unwrap
from s3pt_mm.data.labelled_images import LabelledImages
from s3pt_mm.probes.controls import CONSTANT
from s3pt_mm.probes.evaluation import evaluate_with_controls, knn_head
from s3pt_mm.probes.patches import Views


class _AskedToLeave(Exception):  # noqa: N818  no error
    pass


@HOOKS.register_module()
class KnnProbeHook(Hook):
    """Dense k-NN mIoU of the teacher on a small labelled split, before training and every n epochs.

    Runs on rank 0; trains nothing and draws nothing from the global random generators. Figures go
    to the log, to the visualiser's backends (``knn/mIoU``, ``knn/best_control``) and, with every
    class and all controls (``s3pt_mm.probes.controls``), to ``<work_dir>/knn_probe.json``, which a
    resumed run continues. Only what lies above the best control was learned.

    Args:
        train: Arguments of ``LabelledImages.build`` for the memory: a nuImages list
            (``ann_file``), a Cityscapes folder (``root``, ``split``) or any two folders
            (``images``, ``masks``), and ``image_size``, ``class_set``, ``max_images``.
        val: The same for the images that are segmented.
        interval: Epochs between probes.
        at_start: Probe the untrained teacher too, the figure to compare with.
        k: Number of neighbours.
        temperature: Of the softmax over similarities.
        memory_size: Patches in the memory at most.
        batch_size: Images at a time.
        views: Random ``'crops'`` of the images or, as published figures have it, whole
            ``'images'``.
        remove_place: Subtract the mean feature of each place (published figures: False).
        crops: Crops of each image.
    """

    priority = 'LOW'

    def __init__(
        self,
        *,
        train: dict,
        val: dict,
        interval: int = 10,
        at_start: bool = True,
        k: int = 30,
        temperature: float = 0.02,
        memory_size: int | None = 100_000,
        batch_size: int = 8,
        views: Views = 'crops',
        remove_place: bool = True,
        crops: int = 4,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1 epoch, got {interval}')
        self.splits = (train, val)
        self.interval = interval
        self.at_start = at_start
        self.heads = dict(knn=knn_head(k=k, temperature=temperature))
        self.settings: dict[str, Any] = dict(
            memory_size=memory_size,
            batch_size=batch_size,
            views=views,
            remove_place=remove_place,
            crops=crops,
        )
        self.history: list[dict[str, Any]] = []
        self._images: tuple[LabelledImages, LabelledImages] | None = None
        self._known: dict[str, dict[str, Any]] | None = None

    def before_train(self, runner: Runner) -> None:
        """Find a resumed run's history; probe the untrained teacher of a new one."""
        self._file = Path(runner.work_dir) / 'knn_probe.json'
        if runner.iter and self._file.is_file():
            # Probes after the checkpoint that this run resumes from will be made again.
            known = json.loads(self._file.read_text())
            self.history = [point for point in known if point['iteration'] <= runner.iter]
        if self.at_start and runner.iter == 0:
            self.probe(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Probe every ``interval`` epochs and after the last one."""
        # The hook is called before the loop counts the epoch.
        if (runner.epoch + 1) % self.interval == 0 or runner.epoch + 1 == runner.max_epochs:
            self.probe(runner)

    @master_only
    def probe(self, runner: Runner) -> dict[str, Any] | None:
        """Evaluate now; the result is also appended to ``history``. None if a signal (SIGTERM)
        asked to leave meanwhile: minutes may be more than a scheduler waits."""
        if self._images is None:
            train, val = self.splits
            self._images = LabelledImages.build(**train), LabelledImages.build(**val)
        backbone = unwrap(runner.model).teacher['backbone']

        def give_up(*_: Any) -> None:
            if any(getattr(hook, 'asked_to_leave', False) for hook in runner.hooks):
                raise _AskedToLeave

        handle = backbone.register_forward_pre_hook(give_up)
        try:
            figures = evaluate_with_controls(
                backbone, *self._images, self.heads, known=self._known, **self.settings
            )
        except _AskedToLeave:
            runner.logger.info(f'k-NN probe at iteration {runner.iter} given up: asked to leave')
            return None
        finally:
            handle.remove()
        result = figures['knn']
        self._known = dict(knn={name: result['controls'][name] for name in CONSTANT})
        result = dict(result, iteration=runner.iter)
        self.history.append(result)
        write_json(self._file, self.history)
        best = result['controls'][result['best_control']]['mIoU']
        for name, value in (('mIoU', result['mIoU']), ('best_control', best)):
            runner.visualizer.add_scalar(f'knn/{name}', value, step=result['iteration'])
        controls = ', '.join(f'{n} {c["mIoU"]:.2f}' for n, c in result['controls'].items())
        runner.logger.info(
            f'k-NN probe at iteration {result["iteration"]}: mIoU {result["mIoU"]:.4f} '
            f'({result["gain"]:+.2f} over the best control; {controls})'
        )
        return result
