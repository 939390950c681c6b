"""Real JPEGs and sweeps for a benchmark that was given no data set."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config
from mmengine.registry import init_default_scope

from s3pt_mm.data.datasets.nuscenes_infos import create_infos
from s3pt_mm.data.datasets.pretrain_dataset import PretrainDataset


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where images come from; a small ToyDrive is generated where nothing is said."""
    parser.add_argument('--data-root', type=Path, help='folder of nuScenes; default: a ToyDrive')
    parser.add_argument('--ann-file', default='nuscenes_infos_train.parquet')


@contextmanager
def pretraining_dataset(cfg: Config, args: argparse.Namespace) -> Iterator[PretrainDataset]:
    """The config's training set on ``--data-root``, or on a ToyDrive that goes away afterwards."""
    from mmpretrain.registry import DATASETS

    init_default_scope('mmpretrain')
    with TemporaryDirectory() as folder:
        root = args.data_root
        if root is None:
            from s3pt_mm.toydrive.config import ToyDriveConfig
            from s3pt_mm.toydrive.generation import generate

            config = ToyDriveConfig.tiny(outputs=('nuscenes',), camera_sweep_scenes=0)
            root = generate(Path(folder) / 'toydrive', config) / 'nuscenes'
            create_infos(root=root, version='v1.0-mini', out_dir=root, workers=1)
        options = dict(data_root=str(root), ann_file=str(Path(root) / args.ann_file))
        yield DATASETS.build({**cfg.train_dataloader.dataset, **options})
