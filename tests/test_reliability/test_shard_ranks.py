"""Tar shards on two ranks: each image once an epoch, the folder's run, and exact resumption."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from s3pt_mm.cli import prepare_images
from tests.nuscenes_tables import write_jpeg
from tests.test_reliability.ranks import start_ranks
from tools.dev.compare_checkpoints import compare_checkpoints

IMAGES, STEPS = 12, 3  # an epoch of two ranks with two images each
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=[*_base_.custom_imports.imports, 'tests.test_reliability.reading'])
model = dict(
    backbone=dict(_delete_=True, type='S3PTVisionTransformer', img_size=64, patch_size=16,
                  out_type='raw', drop_path_rate=0.3,
                  arch=dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)),
    head=dict(num_prototypes=16, hidden_channels=16, bottleneck_channels=8),
    clustering=dict(num_clusters=4), queue_images=4)
train_pipeline = _base_.train_pipeline
for step in train_pipeline:
    if step['type'] == 'TwoViews':
        step['size'] = 64
train_pipeline.insert(0, dict(type='WriteDown'))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(base_batch_size=4)
param_scheduler = []
epochs = 2
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2, max_keep_ckpts=-1))
visualizer = dict(vis_backends=[])
"""


def train(arguments: list[str], variables: dict[str, str]) -> None:
    """A rank's whole command."""
    os.environ.update(variables)
    from s3pt_mm.cli.train import main

    main(arguments)


def run(config: Path, work: Path, *options: str) -> list[list[str]]:
    """Two ranks to the end; what each read, as 'epoch name'."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    read = work.with_suffix('.read')
    read.mkdir()
    variables = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), READ=str(read))
    arguments = [str(config), '--work-dir', str(work), '--launcher', 'pytorch', *options]
    start_ranks(train, 2, work.with_suffix('.ends'), arguments, variables, timeout=500)
    ranks = [file.read_text().splitlines() for file in sorted(read.iterdir())]
    assert len(ranks) == 2
    return ranks


@pytest.mark.slow
def test_two_ranks_on_shards(tmp_path, repository) -> None:
    photos, packed = tmp_path / 'photos', tmp_path / 'shards'
    for index in range(IMAGES):
        write_jpeg(photos / f'{index % 3}' / f'{index}.jpg', index, width=160, height=120)
    command = [str(photos), '--out', str(packed), '--shards', '5', '--reduction', '1']
    assert prepare_images.main([*command, '--workers', '0']) == 0
    runs = {}
    for name, base, data in (
        ('folder', 'vits16_image_folder', [f'data_root={photos}']),
        ('packed', 'vits16_logs', [f'data_root={packed}', 'ann_file=shards.parquet']),
    ):
        config = tmp_path / f'{name}.py'
        config.write_text(CONFIG.format(base=str(repository / f'configs/s3pt/{base}.py')))
        options = [f'train_dataloader.dataset.{setting}' for setting in data]
        runs[name] = run(config, tmp_path / name, '--cfg-options', *options)
    ranks = runs['packed']
    everything = Counter(line for rank in ranks for line in rank)
    assert len(everything) == 2 * IMAGES and set(everything.values()) == {1}
    assert [len(rank) for rank in ranks] == [IMAGES, IMAGES]  # half of each epoch
    assert ranks == runs['folder']
    last = f'iter_{2 * STEPS}.pth'
    differing = compare_checkpoints(tmp_path / 'folder' / last, tmp_path / 'packed' / last)
    own = ('position/data', 'dataset_meta')  # what each data set says of itself
    assert [line for line in differing if not any(name in line for name in own)] == []
    # In the middle of an epoch, in a folder of its own.
    middle = str(tmp_path / 'packed/iter_2.pth')
    rest = run(config, tmp_path / 'again', '--resume', middle, '--cfg-options', *options)
    assert rest == [rank[4:] for rank in ranks]
    assert compare_checkpoints(tmp_path / 'again' / last, tmp_path / 'packed' / last) == []
