"""check_data: what it finds, that it goes on where it was killed, what it writes."""

import csv
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from s3pt_mm.cli import check_data as check_module
from s3pt_mm.cli.check_data import check_dataset
from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.data.transforms.image import EncodedImage
from tests.damaged_jpegs import DAMAGE
from tests.nuscenes_tables import write_jpeg
from tests.tool_runs import load_tool


@pytest.fixture
def damaged(nuscenes_root, tmp_path):
    root = shutil.copytree(nuscenes_root, tmp_path / 'damaged')
    camera = root / 'samples/CAM_FRONT'
    (camera / 'scene-0061-CAM_FRONT-0.jpg').unlink()
    torn = camera / 'scene-0061-CAM_FRONT-2.jpg'
    torn.write_bytes(torn.read_bytes()[:5000])
    write_jpeg(root / 'samples/CAM_BACK/scene-0061-CAM_BACK-0.jpg', 1, width=320, height=180)
    lidar = root / 'samples/LIDAR_TOP/scene-0061-LIDAR_TOP-0.pcd.bin'
    lidar.write_bytes(lidar.read_bytes()[:-3])
    lidar = root / 'samples/LIDAR_TOP/scene-0061-LIDAR_TOP-2.pcd.bin'
    points = np.fromfile(lidar, np.float32)
    points[7] = np.nan
    points.tofile(lidar)
    return root


EXPECTED = {
    'scene-0061-CAM_FRONT-0.jpg': 'missing',
    'scene-0061-CAM_FRONT-2.jpg': 'torn',
    'scene-0061-CAM_BACK-0.jpg': 'wrong size',
    'scene-0061-LIDAR_TOP-0.pcd.bin': 'wrong size',
    'scene-0061-LIDAR_TOP-2.pcd.bin': 'torn',
}


def dataset_of(root, info_dir):
    return NuScenesImages(
        data_root=str(root), ann_file=str(info_dir / 'nuscenes_infos_train.parquet')
    )


@pytest.mark.parametrize('workers', [1, 2])
def test_finds_each_fault_once(damaged, info_dir, tmp_path, workers, monkeypatch):
    monkeypatch.setattr(check_module, '_CHUNK', 5)
    out = tmp_path / 'report.json'
    report = check_dataset(dataset_of(damaged, info_dir), out, workers=workers)
    found = {os.path.basename(p['file']): p['kind'] for p in report['problems']}
    assert found == EXPECTED and len(report['problems']) == len(EXPECTED)
    assert report['counts'] == {'missing': 1, 'torn': 2, 'wrong size': 2, 'no lidar': 0}
    assert json.loads(out.read_text()) == report
    assert os.listdir(tmp_path).count('report.json.progress') == 0


@pytest.fixture
def jpeg():
    """A JPEG of 1600 x 900 pixels with structure everywhere."""
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    return cv2.imencode('.jpg', cv2.resize(noise, (1600, 900)))[1].tobytes()


@pytest.mark.parametrize('damage', DAMAGE)
def test_damage_inside_a_jpeg_is_found_by_check_and_loader(jpeg, tmp_path, damage):
    """Whatever happened to it."""
    for number in range(3):
        (tmp_path / f'{number}.jpg').write_bytes(jpeg)
    (tmp_path / '1.jpg').write_bytes(DAMAGE[damage](jpeg))
    (tmp_path / '2.jpg').write_bytes(jpeg + b"a camera maker's own words")  # harmless
    folder = ImageFolderDataset(data_root=str(tmp_path))
    problems = check_dataset(folder, tmp_path / 'r.json', workers=1)['problems']
    assert [(os.path.basename(p['file']), p['kind']) for p in problems] == [('1.jpg', 'torn')]
    with pytest.raises(DataError, match='1.jpg: the JPEG is torn or damaged'):
        EncodedImage((tmp_path / '1.jpg').read_bytes(), '1.jpg').decode(4)


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('ending', ['.png', '.tiff'])
def test_damage_inside_other_images(jpeg, damage, ending):
    """PNG has checksums; OpenCV paints a hole in a TIFF. What has neither is in docs/data.md."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_COLOR_8)
    whole = cv2.imencode(ending, pixels)[1].tobytes()
    assert np.array_equal(EncodedImage(whole, 'x').decode(), pixels[..., ::-1])
    with pytest.raises(DataError, match='x: not a (whole|readable) image'):
        EncodedImage(DAMAGE[damage](whole), 'x').decode()


@pytest.mark.parametrize('reduction', [1, 2, 4, 8])
def test_pixels_are_those_of_opencv(jpeg, reduction):
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
             8: cv2.IMREAD_REDUCED_COLOR_8}  # fmt: skip
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flags[reduction])
    assert np.array_equal(EncodedImage(jpeg, '').decode(reduction), expected[..., ::-1])


def test_whole_dataset_has_no_problem(nuscenes_root, info_dir, tmp_path):
    report = check_dataset(dataset_of(nuscenes_root, info_dir), tmp_path / 'r.json', workers=1)
    assert report['problems'] == [] and report['images'] == 12


def test_without_lidar(nuscenes_root, tmp_path):
    folder = ImageFolderDataset(data_root=str(nuscenes_root / 'samples'))
    assert check_dataset(folder, tmp_path / 'a.json', workers=1)['problems'] == []
    report = check_dataset(folder, tmp_path / 'b.csv', workers=1, expect_lidar=True)
    assert report['counts']['no lidar'] == 24
    with open(tmp_path / 'b.csv', newline='') as file:
        rows = [row for row in csv.DictReader(file) if 'duplicate' not in row['kind']]
    assert len(rows) == 24 and {row['kind'] for row in rows} == {'no lidar'}


def test_goes_on_where_it_stopped(damaged, info_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(check_module, '_CHUNK', 3)
    dataset, out = dataset_of(damaged, info_dir), tmp_path / 'report.json'
    calls = []
    original = check_module._check_range

    def stop_at_third(bounds):
        calls.append(bounds)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(bounds)

    monkeypatch.setattr(check_module, '_check_range', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        check_dataset(dataset, out, workers=1)
    assert not out.exists()
    progress = tmp_path / 'report.json.progress'
    progress.write_text(progress.read_text() + '{"start": 6, "st')  # killed in the middle of a line
    report = check_dataset(dataset, out, workers=1)
    assert calls[2:] == [(6, 9), (6, 9), (9, 12)]  # the first two ranges were not read again
    found = {os.path.basename(p['file']): p['kind'] for p in report['problems']}
    assert found == EXPECTED


def test_progress_of_another_dataset_is_not_taken_over(damaged, nuscenes_root, info_dir, tmp_path):
    out = tmp_path / 'report.json'
    header = {'ann_file': 'other', 'data_root': '', 'images': 12, 'lidar': True}
    ranges = {'start': 0, 'stop': 16, 'problems': []}
    (tmp_path / 'report.json.progress').write_text(
        json.dumps(header) + '\n' + json.dumps(ranges) + '\n'
    )
    assert len(check_dataset(dataset_of(damaged, info_dir), out, workers=1)['problems']) == 5


def test_progress_of_another_list_of_the_same_length_is_not_taken_over(tmp_path, monkeypatch):
    """One image went, another came: those behind it have moved, and one was never looked at."""
    monkeypatch.setattr(check_module, '_CHUNK', 1)
    for name in 'acde':
        write_jpeg(tmp_path / 'images' / f'{name}.jpg', ord(name), width=64, height=48)
    open_folder = lambda: ImageFolderDataset(data_root=str(tmp_path / 'images'))
    original = check_module._check_range

    def stop_at_third(bounds):
        if bounds == (2, 3):
            raise KeyboardInterrupt
        return original(bounds)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(check_module, '_check_range', stop_at_third)
        check_dataset(open_folder(), tmp_path / 'r.json', workers=1)
    (tmp_path / 'images' / 'e.jpg').unlink()
    (tmp_path / 'images' / 'b.jpg').write_bytes(b'')
    report = check_dataset(open_folder(), tmp_path / 'r.json', workers=1)
    assert [os.path.basename(p['file']) for p in report['problems']] == ['b.jpg']


def test_command_line(damaged, info_dir, tmp_path, repository, capsys):
    tool = load_tool(repository, 'check_data')
    info = str(info_dir / 'nuscenes_infos_train.parquet')
    out = tmp_path / 'report.json'
    arguments = ['--out', str(out), '--workers', '1']
    assert tool.main(['--info', info, '--root', str(damaged), *arguments]) == 1
    assert '12 images: 1 missing, 2 torn, 2 wrong size, 0 no lidar' in capsys.readouterr().out
    assert len(json.loads(out.read_text())['problems']) == 5
    assert tool.main(['--folder', str(damaged / 'sweeps'), *arguments]) == 0
    assert tool.main(['--folder', str(damaged / 'absent'), *arguments]) == 2
    config = tmp_path / 'config.py'
    config.write_text(
        'train_dataloader = dict(dataset=dict(type="NuScenesImages", pipeline=[dict(type="No")],'
        f' data_root={str(damaged)!r}, ann_file={info!r}, cameras=["CAM_BACK"]))'
    )
    assert tool.main(['--config', str(config), *arguments]) == 1
    assert json.loads(out.read_text())['counts']['wrong size'] == 2
