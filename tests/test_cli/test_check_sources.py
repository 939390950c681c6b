"""check_data on every layout that an info file, a folder or a config can have; what it compares."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from s3pt_mm.cli.check_data import main
from s3pt_mm.cli.look_at_data import main as look
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.data.duplicates import look_hash, near_groups
from tests.nuscenes_tables import street, write_jpeg
from tests.test_data.test_formats import logs
from tests.test_data.test_formats.test_adapters import convert, write_folder
from tests.test_data.test_image_files import mask, photo, write_camvid


def check(tmp_path: Path, *source: object) -> dict:
    out = tmp_path / 'report.json'
    status = main([*map(str, source), '--out', str(out), '--workers', '1'])
    assert status in (0, 1)
    return json.loads(out.read_text())


def test_kitti_as_mmdetection3d_lays_it_out(tmp_path, capsys):
    """Bare names, folders known from the data set's name, the info file one folder further down."""
    root = tmp_path / 'kitti'
    for index in range(2):
        write_jpeg(root / f'training/image_2/{index:06d}.png', index, 320, 180)
        logs.write_bin(root / f'training/velodyne/{index:06d}.bin', logs.cloud(index))
    samples = [
        {
            'sample_idx': index,
            'images': {
                'CAM2': {
                    'img_path': f'{index:06d}.png',
                    'cam2img': logs.kitti_projection(0.0).tolist(),
                    'lidar2cam': logs.LIDAR2CAM.tolist(),
                },
                'R0_rect': np.eye(4).tolist(),
            },
            'lidar_points': {'lidar_path': f'{index:06d}.bin', 'num_pts_feats': 4},
        }
        for index in range(2)
    ]
    (root / 'infos').mkdir()
    write_info_file(root / 'infos/kitti_infos_train.pkl', {'dataset': 'kitti'}, samples)
    report = check(tmp_path, '--info', root / 'infos/kitti_infos_train.pkl')
    assert report['images'] == 2 and report['problems'] == []
    moved = shutil.move(root / 'infos/kitti_infos_train.pkl', tmp_path / 'elsewhere.pkl')
    (tmp_path / 'deep/er').mkdir(parents=True)
    moved = shutil.move(moved, tmp_path / 'deep/er/kitti.pkl')
    shutil.move(root, tmp_path / 'kitti_moved')
    arguments = ['--out', str(tmp_path / 'r.json'), '--workers', '1']
    assert main(['--info', str(moved), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'training/image_2/000000.png' in error and '--root' in error
    assert main(['--info', str(moved), '--root', str(tmp_path / 'kitti_moved'), *arguments]) == 0
    assert look([str(moved)]) == 1  # the same rule for pictures
    assert '--root' in capsys.readouterr().err


def test_waymo_as_mmdetection3d_1_4_versions_it(tmp_path):
    """``info_version`` is 'mmdet3d_v1.4', projections are 3 x 4, a point has six numbers."""
    root, projection = tmp_path / 'waymo', logs.kitti_projection(0.0)
    write_jpeg(root / 'training/image_0/0000000.jpg', 0, 320, 180)
    points = np.pad(logs.cloud(0), ((0, 0), (0, 2)))
    logs.write_bin(root / 'training/velodyne/0000000.bin', points)
    image = {
        'img_path': '0000000.jpg', 'height': 180, 'width': 320, 'cam2img': projection.tolist(),
        'lidar2cam': logs.LIDAR2CAM.tolist(), 'lidar2img': (projection @ logs.LIDAR2CAM).tolist(),
    }  # fmt: skip
    sample = {
        'sample_idx': 0,
        'images': {'CAM_FRONT': image},
        'lidar_points': {'lidar_path': '0000000.bin', 'num_pts_feats': 6},
    }
    info = root / 'waymo_infos_train.pkl'
    write_info_file(info, {'dataset': 'waymo', 'info_version': 'mmdet3d_v1.4'}, [sample])
    report = check(tmp_path, '--info', info)
    assert report['images'] == 1 and report['problems'] == []


def test_depth_maps_are_read(tmp_path):
    write_folder(tmp_path / 'log', None)
    convert('folder', tmp_path / 'log', tmp_path / 'out')
    info = next((tmp_path / 'out').glob('*_infos_train.parquet'))
    infos = load_info_file(info)
    for index, shape in enumerate([(90, 160), (90, 90), None, (90, 160)]):
        path = tmp_path / 'out' / f'{index}.png'
        image = infos['data_list'][index]['images']['front']
        image['depth_map'] = path.name
        if shape:
            cv2.imwrite(str(path), np.full(shape, 2560, np.uint16))
    (tmp_path / 'out/3.png').write_bytes((tmp_path / 'out/3.png').read_bytes()[:40])
    write_info_file(info, infos['metainfo'], infos['data_list'])
    problems = check(tmp_path, '--info', info)['problems']
    assert {(Path(p['file']).name, p['kind']) for p in problems} == {
        ('1.png', 'wrong size'), ('2.png', 'missing'), ('3.png', 'torn'),
    }  # fmt: skip


# ---- configs ------------------------------------------------------------------------------------


def test_a_shipped_config_in_a_process_of_its_own(tmp_path, repository):
    """Nothing else has applied what today's libraries need; several joined data sets count."""
    for part in 'ab':
        write_jpeg(tmp_path / part / '1.jpg', ord(part), width=320, height=240)
    (tmp_path / 'b/1.jpg').write_bytes((tmp_path / 'b/1.jpg').read_bytes()[:999])
    part = 'dict(type="ImageFolderDataset", data_root=%r, pipeline=[])'
    parts = ', '.join(part % str(tmp_path / name) for name in 'ab')
    config = tmp_path / 'mine.py'
    base = repository / 'configs/cribo/vits16_image_folder.py'
    joined = f'dict(_delete_=True, type="ConcatDataset", datasets=[{parts}])'
    config.write_text(f'_base_ = [{str(base)!r}]\ntrain_dataloader = dict(dataset={joined})')
    run = 'from s3pt_mm.cli.check_data import main; raise SystemExit(main())'
    done = subprocess.run(
        [sys.executable, '-c', run, '--config', str(config), '--out', str(tmp_path / 'r.json')],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert '2 images: 0 missing, 1 torn' in done.stdout and 'b/1.jpg' in done.stdout


def test_a_probe_config_has_its_masks_read(tmp_path, repository):
    data = write_camvid(tmp_path / 'camvid')
    (tmp_path / 'classes.json').write_text('["a", "b", "c", "d", "e"]')  # masks hold 5, too
    config = tmp_path / 'probe.py'
    dataset = dict(
        _delete_=True, type='FolderSegDataset', data_root=str(data), pipeline=[],
        class_set=str(tmp_path / 'classes.json'),
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
    )  # fmt: skip
    base = repository / 'configs/segmenter/linear_vits16_nuimages.py'
    config.write_text(f'_base_ = [{str(base)!r}]\ntrain_dataloader = dict(dataset={dataset!r})')
    problems = check(tmp_path, '--config', config)['problems']
    assert len(problems) == 3 and 'holds the label 5' in problems[0]['problem']


def test_mistakes_in_a_config_are_one_line(tmp_path, capsys):
    command = ['--out', str(tmp_path / 'r.json'), '--config']
    assert main([*command, 'absent.py']) == 2
    folder = ['cribo/vits16_image_folder.py', '--cfg-options']
    assert main([*command, *folder, 'train_dataloader.dataset.data_rot=/x']) == 2
    assert main([*command, *folder, f'train_dataloader.dataset.data_root={tmp_path}/x']) == 2
    assert capsys.readouterr().err.count('error: ') == 3


# ---- comparisons --------------------------------------------------------------------------------


def test_duplicates_near_duplicates_and_masks(tmp_path, capsys):
    root = write_camvid(tmp_path / 'data', images=1)
    shutil.rmtree(root / 'val')
    shutil.rmtree(root / 'valannot')
    street_jpeg = write_jpeg(root / 'street.jpg', 3)
    shutil.copy(street_jpeg, root / 'copy.jpg')
    again = Image.open(street_jpeg)
    again.resize((again.width // 2, again.height // 2)).save(root / 'smaller.jpg', quality=60)
    write_jpeg(root / 'other.jpg', 9)
    Image.fromarray(mask() + 1).save(root / 'train/1_L.png')
    report = check(tmp_path, '--folder', root)
    assert report['problems'] == []
    names = {
        key: [sorted(Path(name).name for name in group) for group in report[key]]
        for key in ('duplicates', 'near_duplicates')
    }
    assert names['duplicates'] == [['copy.jpg', 'street.jpg']]
    assert names['near_duplicates'] == [['copy.jpg', 'smaller.jpg']]
    assert report['exclude'] == ['*_L.png', 'trainannot/*']
    said = capsys.readouterr().out
    assert '2 are there more than once (same bytes), in 1 groups' in said
    assert '2 look nearly like another, in 1 groups' in said
    assert '2 (28.6%) look like label masks' in said
    out = tmp_path / 'report.csv'
    assert main(['--folder', str(root), '--out', str(out), '--workers', '1']) == 0
    rows = list(csv.DictReader(out.open()))
    assert [row['kind'] for row in rows] == ['duplicate', 'near duplicate', 'mask', 'mask']


def test_near_groups_are_those_of_all_pairs():
    """Bands find what comparing every pair does."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 256, (40, 40), dtype=np.uint8)
    rows = np.repeat(base, 4, axis=0)
    flips = generator.integers(0, 320, (len(rows), 9))
    bits = np.unpackbits(rows, axis=1)
    for row, places in zip(bits, flips, strict=True):
        row[places] ^= 1
    looks = [np.packbits(row).tobytes().hex() for row in bits]
    differing = bits[:, None] != bits[None]
    near = (differing[..., :64].sum(-1) <= 3) & (differing[..., 64:].sum(-1) <= 20)
    groups = near_groups(looks)
    assert 10 < len(groups) < 60
    for group in groups:
        assert all(near[a, [b for b in group if b != a]].any() for a in group)
    together = {(a, b) for group in groups for a in group for b in group}
    assert all((a, b) in together for a, b in zip(*np.nonzero(near), strict=True) if a != b)
    assert near_groups([]) == []


def test_a_street_looks_like_itself_alone():
    streets = [street(seed) for seed in range(6)]
    looks = [look_hash(pixels) for pixels in (*streets, *(p[::2, ::2] for p in streets))]
    assert near_groups(looks) == [[seed, seed + 6] for seed in range(6)]
    assert look_hash(photo()) != look_hash(photo()[:, ::-1])


def test_pictures_read_only_what_they_draw(info_dir, nuscenes_root, tmp_path, monkeypatch):
    read, whole = [], NuScenesImages.get_data_info
    monkeypatch.setattr(
        NuScenesImages, 'get_data_info', lambda self, i: read.append(i) or whole(self, i)
    )
    info = str(info_dir / 'nuscenes_infos_train.parquet')
    command = [info, '--root', str(nuscenes_root), '--out-dir', str(tmp_path), '--samples', '1']
    assert look([*command, '--width', '64']) == 0
    assert len(read) == 6  # one a camera
