"""Images in tar shards are those of the folder, to the bit; a shard that is not whole is named."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from s3pt_mm.cli.check_data import main as check
from s3pt_mm.cli.prepare_images import main
from s3pt_mm.common.errors import DataError
from s3pt_mm.data import shards
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.resume.keyed_sampler import KeyedIndex, KeyedSampler
from tests.nuscenes_tables import write_jpeg

PIPELINE = [
    {'type': 'SeedFromIndex'},
    {'type': 'LoadImage'},
    {'type': 'LoadLidar'},
    {'type': 'LoadDepthMap'},
    {'type': 'TwoViews', 'size': 64},
    {'type': 'TokenGeometry'},
    {'type': 'PackViews'},
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / 'photos'
    for index in range(7):
        write_jpeg(root / f'drive {index % 2}' / f'{index}.jpg', index, width=160, height=120)
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    first = Image.open(root / 'drive 0/0.jpg')
    first.save(root / 'Ü.jpg', exif=exif)
    first.save(root / 'a.png')
    return root


def pack(source: Path, out: Path, *options: str) -> None:
    command = [str(source), '--out', str(out), '--shards', '4', '--workers', '0', *options]
    assert main(command) == 0


def assert_same_views(one, other) -> None:
    assert len(one) == len(other)
    for index in range(len(one)):
        key = KeyedIndex(index, seed=3, epoch=index % 2)
        a, b = one[key], other[key]
        for view, again in zip(a['inputs'], b['inputs'], strict=True):
            assert torch.equal(view, again)
        for name in ('token_xy', 'token_depth', 'token_has_depth', 'sample_seed'):
            assert torch.equal(a['data_samples'].get(name), b['data_samples'].get(name))


def test_views_are_the_folders_to_the_bit(photos, tmp_path):
    out = tmp_path / 'shards'
    pack(photos, out, '--reduction', '1')
    assert sorted(path.name for path in out.glob('*.tar')) == [
        f'shard-00000{number}.tar' for number in range(3)
    ]
    folder = ImageFolderDataset(data_root=str(photos), pipeline=PIPELINE)
    packed = NuScenesImages(data_root=str(out), ann_file='shards.parquet', pipeline=PIPELINE)
    assert_same_views(folder, packed)
    assert [packed.get_data_info(i)['token'] for i in range(9)] == [
        folder.get_data_info(i)['token'] for i in range(9)
    ]
    # Anybody's tar reads them, and the bytes are the files' own.
    with tarfile.open(out / 'shard-000000.tar') as tar:
        first = tar.getmembers()[0]
        assert tar.extractfile(first).read() == (photos / first.name).read_bytes()


def test_workers_and_ranks_read_what_those_of_the_folder_read(photos, tmp_path):
    pack(photos, tmp_path / 'shards', '--reduction', '1')
    folder = ImageFolderDataset(data_root=str(photos), pipeline=PIPELINE)
    root = str(tmp_path / 'shards')
    packed = NuScenesImages(data_root=root, ann_file='shards.parquet', pipeline=PIPELINE)
    batches = [
        list(
            DataLoader(
                data,
                batch_size=2,
                sampler=KeyedSampler(data, shuffle=True, seed=5),
                num_workers=workers,
                collate_fn=lambda batch: torch.stack([sample['inputs'][0] for sample in batch]),
            )
        )
        for data, workers in ((folder, 0), (packed, 2))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_an_info_file_with_sweeps_and_depth_maps(nuscenes_root, info_dir, tmp_path):
    root = shutil.copytree(nuscenes_root, tmp_path / 'data')
    infos = load_info_file(info_dir / 'nuscenes_infos_train.parquet')
    image = infos['data_list'][1]['images']['CAM_BACK']
    np.save(root / 'depth.npy', np.full((90, 160), 7.0, np.float32))
    image['depth_map'] = 'depth.npy'
    infos['data_list'][1]['lidar_points']['lidar_path'] = ''
    write_info_file(root / 'infos.parquet', infos['metainfo'], infos['data_list'])
    for reduction, out in ((1, tmp_path / 'whole'), (2, tmp_path / 'half')):
        pack(root / 'infos.parquet', out, '--reduction', str(reduction), '--shards', '5')
    options = dict(ann_file='infos.parquet', pipeline=PIPELINE, image_sweeps=True)
    before = NuScenesImages(data_root=str(root), **options)
    shutil.rmtree(root / 'samples')
    packed = NuScenesImages(data_root=str(tmp_path / 'whole'), **options)
    half = NuScenesImages(data_root=str(tmp_path / 'half'), **options)
    root.rename(tmp_path / 'gone')  # nothing is read but the shards
    assert len(packed) == len(before) == 18
    depths = [packed[index]['data_samples'].token_has_depth.any() for index in range(18)]
    assert sum(map(bool, depths)) == 18 - 5  # one sample lost its sweep, one image has a map
    assert half.get_data_info(0)['ori_size'] == (320, 180)
    assert check(['--info', str(tmp_path / 'half/infos.parquet'), '--out',
                  str(tmp_path / 'r.json'), '--workers', '1']) == 1  # fmt: skip
    (tmp_path / 'gone').rename(root)
    shutil.copytree(nuscenes_root / 'samples', root / 'samples')
    assert_same_views(before, packed)


def test_goes_on_where_it_was_interrupted(photos, tmp_path, capsys):
    out = tmp_path / 'shards'
    torn = photos / 'drive 1/5.jpg'
    whole = torn.read_bytes()
    torn.write_bytes(whole[:700])
    command = [str(photos), '--out', str(out), '--shards', '4', '--workers', '0']
    assert main(command) == 1
    assert '5.jpg: the JPEG is torn' in capsys.readouterr().err
    assert [path.name for path in out.glob('*.tar')] == ['shard-000000.tar']
    stamp = (out / 'shard-000000.tar').stat().st_mtime_ns
    torn.write_bytes(whole)
    assert main(command) == 0
    assert (out / 'shard-000000.tar').stat().st_mtime_ns == stamp
    assert len(NuScenesImages(data_root=str(out), ann_file='shards.parquet')) == 9
    write_jpeg(photos / 'new.jpg', 0)  # would move every later image into another shard
    assert main(command) == 1
    assert 'Use another --out' in capsys.readouterr().err


def test_a_truncated_shard_is_named(photos, tmp_path, capsys):
    out = tmp_path / 'shards'
    pack(photos, out, '--reduction', '1')
    options = dict(data_root=str(out), ann_file='shards.parquet', pipeline=PIPELINE)
    opened = NuScenesImages(**options)
    shard = out / 'shard-000002.tar'
    os.truncate(shard, shard.stat().st_size // 3)
    with pytest.raises(DataError, match=r'shard-000002\.tar: \d+ bytes, not \d+'):
        NuScenesImages(**options)
    shards._open.cache_clear()
    with pytest.raises(DataError, match=r'shard-000002\.tar: the shard is truncated'):
        opened[8]
    again = [str(photos), '--out', str(out), '--shards', '4', '--workers', '0', '--reduction', '1']
    assert main(again) == 1  # it is not taken for one that an earlier call wrote
    assert 'shard-000002.tar' in capsys.readouterr().err
    shard.unlink()
    with pytest.raises(DataError, match=r'shard-000002\.tar: no such shard'):
        NuScenesImages(**options)


@pytest.mark.parametrize('span', [(0, 10**15), (-5, 4), (10**15, 4), (8, 3)])
def test_spans_that_the_shard_has_not(tmp_path, span):
    """No memory is asked for what is not there."""
    (tmp_path / 'x.tar').write_bytes(b'0123456789')
    with pytest.raises(DataError, match=r'x\.tar: the shard is truncated: .* 10 bytes are there'):
        shards.read_bytes(tmp_path / 'x.tar', span)


def test_tar_files_of_others(tmp_path, capsys):
    """WebDataset's: image and its labels under one key, names that start anew in each file."""
    for number in range(2):
        with tarfile.open(tmp_path / f'{number:05d}.tar', 'w', format=tarfile.PAX_FORMAT) as tar:
            for index in range(2):
                jpeg = write_jpeg(tmp_path / 'x.jpg', 2 * number + index, width=160, height=120)
                tar.add(jpeg, f'{"long" * 40}{index}.jpg')
                tar.add(__file__, f'{index}.txt')
    os.unlink(tmp_path / 'x.jpg')
    assert main([str(tmp_path), '--index']) == 0
    options = dict(data_root=str(tmp_path), ann_file='shards.parquet', pipeline=PIPELINE)
    data = NuScenesImages(**options)
    assert len(data) == 4 and data[3]['inputs'][0].shape == (3, 64, 64)
    with tarfile.open(tmp_path / '2.tar', 'w:gz') as tar:
        tar.add(__file__)
    assert main([str(tmp_path), '--index']) == 1
    assert '2.tar: not a whole, uncompressed tar file' in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert '--out' in capsys.readouterr().err
