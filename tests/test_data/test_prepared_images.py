"""Images stored smaller give the views of the originals, and the command survives interruptions."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from s3pt_mm.cli.prepare_images import main
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from tests.nuscenes_tables import write_jpeg


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.RandomState(0).randint(0, 255, (60, 110, 3), dtype=np.uint8)
    smooth = cv2.resize(noise, (1600, 900), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / 'photos' / 'a' / 'photo.jpg'
    path.parent.mkdir(parents=True)
    Image.fromarray(smooth).save(path, quality=95)
    return path


def views(path: Path, size: int, max_reduction: int) -> dict:
    from s3pt_mm.data.transforms import LoadImage, TwoViews

    np.random.seed(0)
    results = LoadImage().transform(dict(img_path=str(path)))
    return TwoViews(size=size, max_reduction=max_reduction).transform(results)


def test_views_are_those_of_the_originals(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / 'half'
    assert main([str(tmp_path / 'photos'), '--out', str(out), '--workers', '0']) == 0
    before, after = views(photo, 224, 2), views(out / 'a' / 'photo.jpg', 224, 1)
    assert np.array_equal(before['view_boxes'], 2 * after['view_boxes'])
    assert np.array_equal(before['view_flips'], after['view_flips'])
    for one, other in zip(before['img'], after['img'], strict=True):
        difference = np.abs(one.astype(int) - other)
        assert difference.mean() < 1.5 and difference.max() > 0  # levels of 256: the JPEG's noise


def test_goes_on_where_it_was_interrupted(photo: Path, tmp_path: Path, capsys) -> None:
    folder, out = tmp_path / 'photos', tmp_path / 'half'
    Image.new('RGB', (9, 7), (10, 200, 30)).save(folder / 'small.png')
    torn = folder / 'torn.jpg'
    torn.write_bytes(photo.read_bytes()[:5000])
    command = [str(folder), '--out', str(out), '--workers', '0']
    assert main(command) == 1
    assert 'torn.jpg: the JPEG is torn' in capsys.readouterr().err
    torn.unlink()
    stamp = (out / 'a' / 'photo.jpg').stat().st_mtime_ns
    assert main(command) == 0
    assert '0 images written, 2 were there' in capsys.readouterr().out
    assert (out / 'a' / 'photo.jpg').stat().st_mtime_ns == stamp
    with Image.open(out / 'small.png.jpg') as small:
        assert small.size == (5, 4)
    assert main([*command, '--quality', '80']) == 1
    assert 'Use another --out' in capsys.readouterr().err


def test_info_file_goes_along(nuscenes_root: Path, info_dir: Path, tmp_path: Path) -> None:
    source = info_dir / 'nuscenes_infos_train.parquet'
    command = [str(source), '--root', str(nuscenes_root), '--out', str(tmp_path), '--workers', '2']
    assert main(command) == 0
    images = [
        load_info_file(file)['data_list'][0]['images']['CAM_FRONT']
        for file in (source, tmp_path / source.name)
    ]
    for name in ('cam2img', 'lidar2img'):
        old, new = (np.array(image[name]) for image in images)
        assert np.allclose(new[:2], old[:2] / 2) and np.array_equal(new[2:], old[2:])
    options = dict(with_lidar=True, image_sweeps=True, pipeline=[])
    old = NuScenesImages(data_root=str(nuscenes_root), ann_file=str(source), **options)
    new = NuScenesImages(data_root=str(tmp_path), ann_file=source.name, **options)
    assert len(old) == len(new) > 0
    for index in range(len(new)):
        item, before = new.get_data_info(index), old.get_data_info(index)
        with Image.open(item['img_path']) as image:
            assert image.size == tuple(item['ori_size'])
            assert image.size == tuple(-(-side // 2) for side in before['ori_size'])
        assert Path(item['lidar_points']['lidar_path']).is_file()


def test_kittis_folders_and_depth_maps_go_along(tmp_path: Path) -> None:
    """Bare names lie where the data set's name says, not in nuScenes' folders."""
    root, out = tmp_path / 'kitti', tmp_path / 'half'
    write_jpeg(root / 'training/image_2/000000.jpg', 0, 320, 180)
    (root / 'depth').mkdir()
    cv2.imwrite(str(root / 'depth/0.png'), np.full((180, 320), 2560, np.uint16))
    image = dict(img_path='000000.jpg', width=320, height=180, depth_map='depth/0.png')
    samples = [dict(images=dict(CAM2=image))]
    write_info_file(root / 'infos.parquet', dict(dataset='kitti'), samples)
    assert main([str(root / 'infos.parquet'), '--out', str(out), '--workers', '0']) == 0
    item = NuScenesImages(data_root=str(out), ann_file='infos.parquet').get_data_info(0)
    assert item['img_path'] == str(out / 'training/image_2/000000.jpg')
    assert item['ori_size'] == (160, 90) and Path(item['depth_map']).is_file()
    with Image.open(item['img_path']) as stored:
        assert stored.size == (160, 90)


@pytest.mark.parametrize('images', ['x', dict(a='x'), dict(a=dict(width=3)), None])
def test_garbled_entries_name_the_file(images, tmp_path: Path, capsys) -> None:
    infos = dict(metainfo={}, data_list=[dict(images=images)])
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(infos))
    assert main([str(tmp_path / 'infos.pkl'), '--out', str(tmp_path / 'out')]) == 1
    assert 'infos.pkl: lacks or garbles a field' in capsys.readouterr().err
