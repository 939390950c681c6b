"""Refuses a checkpoint that was trained with other cameras or another order of them."""

from collections.abc import Sequence

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from s3pt_mm.detection.data.loading import NUSCENES_CAMERAS


@HOOKS.register_module()
class CameraOrderHook(Hook):
    """Compares the cameras of a loaded detector with those of the data.

    PETR's multi-view embedding numbers the views; with another order a detector runs and is wrong.
    Checkpoints record the order in ``meta.dataset_meta.cameras`` (written by
    :class:`SurroundNuScenesDataset`). A checkpoint without the record is taken to have
    ``assumed``, with one line in the log.

    Args:
        assumed: Cameras of a checkpoint that records none: mmdet3d's order by default, in which
            the published PETR checkpoint was trained.
    """

    def __init__(self, *, assumed: Sequence[str] = NUSCENES_CAMERAS) -> None:
        self.assumed = list(assumed)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Checks each data loader that exists.

        Raises:
            ValueError: The cameras differ.
        """
        recorded = checkpoint.get('meta', {}).get('dataset_meta', {}).get('cameras')
        if recorded is None:
            recorded = self.assumed
            print_log(
                f'The checkpoint does not record its cameras; taken to be {recorded}', 'current'
            )
        for name in ('_train_loop', '_val_loop', '_test_loop'):
            loader = getattr(getattr(runner, name, None), 'dataloader', None)
            metainfo = getattr(getattr(loader, 'dataset', None), 'metainfo', {})
            cameras = metainfo.get('cameras')
            if cameras is not None and list(cameras) != list(recorded):
                raise ValueError(
                    f'{name[1:]}: the data gives cameras {list(cameras)}, the checkpoint was '
                    f'trained with {list(recorded)}; set `cameras` of LoadSurroundImages to the '
                    "checkpoint's"
                )
