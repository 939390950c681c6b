"""Tables -> info files: values against nuscenes-devkit, acceptance by mmdet3d, bad tables."""

import json
import pickle
import shutil

import numpy as np
import pytest

from s3pt_mm.cli import create_data
from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.data.datasets.nuscenes_images import DATA_PREFIX, NuScenesImages
from s3pt_mm.data.datasets.nuscenes_infos import create_infos
from s3pt_mm.data.datasets.nuscenes_samples import CLASSES
from tests.nuimages_tables import write_nuimages
from tests.nuscenes_tables import CAMERAS


@pytest.fixture(scope='module')
def train(info_dir):
    return load_info_file(info_dir / 'nuscenes_infos_train.parquet')


@pytest.fixture(scope='module')
def nusc(nuscenes_root):
    from nuscenes.nuscenes import NuScenes

    return NuScenes('v1.0-mini', str(nuscenes_root), verbose=False)


@pytest.fixture
def copy_of_root(nuscenes_root, tmp_path):
    return shutil.copytree(nuscenes_root, tmp_path / 'copy')


def test_splits_and_metainfo(train, info_dir):
    assert train['metainfo'] == {
        'categories': {name: i for i, name in enumerate(CLASSES)},
        'dataset': 'nuscenes',
        'version': 'v1.0-mini',
        'info_version': '1.1',
    }
    val = load_info_file(info_dir / 'nuscenes_infos_val.parquet')
    assert [i['token'] for i in train['data_list']] == ['scene-0061-sample0', 'scene-0061-sample1']
    assert [i['token'] for i in val['data_list']] == ['scene-0103-sample0', 'scene-0103-sample1']
    assert [i['sample_idx'] for i in val['data_list']] == [0, 1]


def test_boxes_equal_the_devkits_in_the_lidar_frame(train, nusc):
    for info in train['data_list']:
        sample = nusc.get('sample', info['token'])
        _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
        assert len(boxes) == len(info['instances']) == 4
        for box, instance in zip(boxes, info['instances'], strict=True):
            width, length, height = box.wlh
            expected = [*box.center, length, width, height, box.orientation.yaw_pitch_roll[0]]
            np.testing.assert_allclose(instance['bbox_3d'], expected, atol=1e-6)
    labels = [i['bbox_label_3d'] for i in train['data_list'][0]['instances']]
    assert labels == [CLASSES.index('car'), CLASSES.index('car'), CLASSES.index('pedestrian'), -1]
    assert [i['bbox_3d_isvalid'] for i in train['data_list'][0]['instances']] == [1, 0, 1, 1]


def test_velocity_is_turned_into_the_lidar_frame(train):
    """Objects move (4, 2) m/s in the world; the car's heading is 0 at its first key frame."""
    for instance in train['data_list'][0]['instances']:
        np.testing.assert_allclose(instance['velocity'], [4, 2], atol=1e-6)
    yaw = 0.05  # at the second
    expected = [4 * np.cos(yaw) + 2 * np.sin(yaw), 2 * np.cos(yaw) - 4 * np.sin(yaw)]
    np.testing.assert_allclose(
        train['data_list'][1]['instances'][0]['velocity'], expected, atol=1e-6
    )


def test_projection_matrices_equal_the_devkits(train, nusc):
    for info in train['data_list']:
        sample = nusc.get('sample', info['token'])
        assert list(info['images']) == list(CAMERAS)
        for cam, image in info['images'].items():
            pixels, depth, _ = nusc.explorer.map_pointcloud_to_image(
                sample['data']['LIDAR_TOP'], sample['data'][cam]
            )
            raw = nusc.get_sample_data_path(sample['data']['LIDAR_TOP'])
            points = np.fromfile(raw, np.float32).reshape(-1, 5)[:, :3]
            projected = np.c_[points, np.ones(len(points))] @ np.array(image['lidar2img']).T
            seen = projected[projected[:, 2] > 1.0]
            uv = seen[:, :2] / seen[:, 2:3]
            inside = ((uv > 1) & (uv < [image['width'] - 1, image['height'] - 1])).all(1)
            assert inside.sum() == len(depth) > 100
            np.testing.assert_allclose(seen[inside, 2], depth, atol=1e-3)
            np.testing.assert_allclose(uv[inside], pixels[:2].T, atol=0.1)


def test_image_sweeps_take_the_nearest_lidar_and_their_own_pose(train):
    assert train['data_list'][0]['image_sweeps'] == []
    sweeps = train['data_list'][1]['image_sweeps']
    assert sorted(next(iter(s['images'])) for s in sweeps) == sorted(CAMERAS)
    sweep = sweeps[0]
    assert sweep['images']['CAM_FRONT']['img_path'] == 'sweeps/CAM_FRONT/scene-0061-CAM_FRONT-1.jpg'
    assert sweep['lidar_points']['lidar_path'] == 'sweeps/LIDAR_TOP/scene-0061-LIDAR_TOP-1.pcd.bin'
    assert sweep['lidar_points']['timestamp'] == 0.25
    np.testing.assert_allclose(np.array(sweep['ego2global'])[0, 3], 1000 + 8 * 0.26)
    # 10 ms at 8 m/s between sweep and exposure, camera 0.1 m to the left of the LiDAR.
    lidar2cam = np.array(sweep['images']['CAM_FRONT']['lidar2cam'])
    assert abs(lidar2cam[2, 3] + 0.08) < 0.01


def test_mmdet3d_accepts_the_file_unchanged(info_dir, nuscenes_root, nusc):
    """Boxes, velocities, valid flags, sweeps, images: through mmdet3d's own dataset and loading."""
    pytest.importorskip('mmcv.ops')
    from mmdet3d.datasets import NuScenesDataset
    from mmdet3d.utils import register_all_modules
    from mmengine.registry import DefaultScope

    scope = DefaultScope.get_current_instance()
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = NuScenesDataset(
            data_root=str(nuscenes_root),
            ann_file=str(info_dir / 'nuscenes_infos_train.parquet'),
            data_prefix=dict(DATA_PREFIX),
            modality={'use_camera': True, 'use_lidar': True},
            use_valid_flag=True,
            pipeline=[
                {'type': 'LoadMultiViewImageFromFiles', 'num_views': 6},
                {'type': 'LoadPointsFromFile', 'coord_type': 'LIDAR', 'load_dim': 5, 'use_dim': 5},
                {'type': 'LoadPointsFromMultiSweeps', 'sweeps_num': 2, 'remove_close': False},
                {'type': 'LoadAnnotations3D', 'with_bbox_3d': True, 'with_label_3d': True},
                {
                    'type': 'Pack3DDetInputs',
                    'keys': ['points', 'img', 'gt_bboxes_3d', 'gt_labels_3d'],
                },
            ],
        )
        packed = dataset[1]
        info = dataset.get_data_info(1)
    assert DefaultScope.get_current_instance() is scope
    truth = packed['data_samples'].gt_instances_3d
    _, boxes, _ = nusc.get_sample_data(
        nusc.get('sample', 'scene-0061-sample1')['data']['LIDAR_TOP']
    )
    valid = [0, 2, 3]
    centres = truth.bboxes_3d.gravity_center.numpy()
    np.testing.assert_allclose(centres, [boxes[k].center for k in valid], atol=1e-4)
    yaws = [boxes[k].orientation.yaw_pitch_roll[0] for k in valid]
    np.testing.assert_allclose(truth.bboxes_3d.yaw.numpy(), yaws, atol=1e-4)
    assert truth.bboxes_3d.tensor.shape[1] == 9 and truth.labels_3d.tolist() == [0, 7, -1]
    assert len(info['lidar_sweeps']) == 2 and len(packed['inputs']['img']) == 6
    assert len(packed['inputs']['points']) == 3 * 4000


def test_sweep_points_meet_in_the_key_frame(train):
    """A fixed world point seen from a sweep and from the key frame: mmdet3d's formula."""
    info = train['data_list'][1]
    world = np.array([1020.0, 503.0, 1.0, 1.0])

    def lidar_of(entry, ego2global):
        return np.array(ego2global) @ np.array(entry['lidar2ego'])

    key = np.linalg.inv(lidar_of(info['lidar_points'], info['ego2global'])) @ world
    for sweep in info['lidar_sweeps']:
        points = sweep['lidar_points']
        seen = np.linalg.inv(lidar_of(points, sweep['ego2global'])) @ world
        np.testing.assert_allclose(np.array(points['lidar2sensor']) @ key, seen, atol=1e-6)


def test_one_frame_end_to_end(one_frame, tmp_path):
    paths = create_infos(root=one_frame, version='v1.0-mini', out_dir=tmp_path, workers=1)
    train, val = map(load_info_file, paths)
    annotations = json.loads((one_frame / 'v1.0-mini/sample_annotation.json').read_text())
    (info,) = train['data_list']
    assert len(info['instances']) == len(annotations) > 60
    assert val['data_list'] == []  # an empty split is legal as a file ...
    assert len(NuScenesImages(data_root=str(one_frame), ann_file=str(paths[0]))) == 6
    with pytest.raises(DataError, match='no images'):  # ... but cannot be trained on
        NuScenesImages(data_root=str(one_frame), ann_file=str(paths[1]))


def test_parallel_equals_serial(nuscenes_root, tmp_path, info_dir):
    create_infos(
        root=nuscenes_root, version='v1.0-mini', out_dir=tmp_path, image_sweeps=True, workers=2
    )
    for split in ('train', 'val'):
        name = f'nuscenes_infos_{split}.parquet'
        assert load_info_file(tmp_path / name) == load_info_file(info_dir / name)


def test_absent_file_stops_or_is_left_out(copy_of_root, tmp_path):
    missing = copy_of_root / 'samples/CAM_BACK/scene-0061-CAM_BACK-2.jpg'
    missing.unlink()
    kwargs = {
        'root': copy_of_root,
        'version': 'v1.0-mini',
        'out_dir': tmp_path / 'out',
        'workers': 1,
    }
    with pytest.raises(DataError, match=r'CAM_BACK-2\.jpg.*absent.*--on-error skip'):
        create_infos(**kwargs)
    assert not (tmp_path / 'out').exists()
    with pytest.raises(DataError, match=r'1 of 4 samples failed, more than 1\.00%'):
        create_infos(**kwargs, on_error='skip')
    train, val = create_infos(**kwargs, on_error='skip', max_failed_share=0.3)
    assert len(load_info_file(train)['data_list']) == 1
    assert len(load_info_file(val)['data_list']) == 2


def test_key_frames_alone_are_enough(copy_of_root, tmp_path):
    shutil.rmtree(copy_of_root / 'sweeps')
    kwargs = {'root': copy_of_root, 'version': 'v1.0-mini', 'out_dir': tmp_path, 'workers': 1}
    with pytest.raises(DataError, match=r'LIDAR_TOP.*--max-sweeps 0'):
        create_infos(**kwargs)
    train, _ = create_infos(**kwargs, max_sweeps=0)
    assert load_info_file(train)['data_list'][1]['lidar_sweeps'] == []


def test_broken_tables(copy_of_root, tmp_path):
    kwargs = {'root': copy_of_root, 'out_dir': tmp_path, 'workers': 1}
    with pytest.raises(DataError, match=r"v1\.0-trainval.*\['v1\.0-mini'\]"):
        create_infos(**kwargs, version='v1.0-trainval')
    with pytest.raises(DataError, match='unknown version'):
        create_infos(**kwargs, version='v9')
    poses = copy_of_root / 'v1.0-mini/ego_pose.json'
    rows = json.loads(poses.read_text())
    poses.write_text(json.dumps(rows[1:]))
    with pytest.raises(DataError, match=r'refers to .*scene-0061-LIDAR_TOP-0'):
        create_infos(**kwargs, version='v1.0-mini')
    poses.write_text('[{"token": ')
    with pytest.raises(DataError, match=r'cannot be loaded \(JSONDecodeError'):
        create_infos(**kwargs, version='v1.0-mini')


@pytest.mark.parametrize('unit', [1e-6, 1e-3, 1e3, 0])
def test_time_stamps_in_another_unit_are_refused(copy_of_root, tmp_path, unit):
    """Seconds gave speeds of millions of m/s, nanoseconds none."""
    for name in ('sample', 'sample_data', 'ego_pose'):
        table = copy_of_root / f'v1.0-mini/{name}.json'
        rows = json.loads(table.read_text())
        table.write_text(json.dumps([dict(r, timestamp=r['timestamp'] * unit) for r in rows]))
    kwargs = {'root': copy_of_root, 'out_dir': tmp_path / 'out', 'version': 'v1.0-mini'}
    with pytest.raises(DataError, match=r'scene-0061-sample1 .*apart.*in microseconds'):
        create_infos(**kwargs, workers=1)
    with pytest.raises(DataError, match=r'2 of 4 samples failed.*in microseconds'):
        create_infos(**kwargs, workers=1, on_error='skip')
    assert not (tmp_path / 'out').exists()


def edit(folder, table, change):
    """Call ``change`` on each row of a table; False drops the row."""
    path = folder / f'{table}.json'
    rows = [row for row in json.loads(path.read_text()) if change(row) is not False]
    path.write_text(json.dumps(rows))


def test_tables_in_the_wrong_place_say_so(copy_of_root, tmp_path, capsys):
    command = ['nuscenes', f'--root={copy_of_root}', '--version=v1.0-mini', '--workers=1']
    command.append(f'--out-dir={tmp_path / "out"}')
    tables = copy_of_root / 'v1.0-mini'

    def said():
        assert create_data.main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    write_nuimages(tmp_path / 'nuimages', 'v1.0-mini', 1, seed=0)
    shutil.copytree(tables, tmp_path / 'kept')
    shutil.copytree(tmp_path / 'nuimages', copy_of_root, dirs_exist_ok=True)
    assert 'Here lie tables of nuImages' in said()
    shutil.rmtree(tables)
    shutil.copytree(tmp_path / 'kept', tables)
    (tables / 'sensor.json').rename(tables / 'x')
    assert 'lacks sensor.json. Download' in said()
    (tables / 'x').rename(tables / 'sensor.json')
    tables.rename(tmp_path / 'tables')
    tables.mkdir()
    (tmp_path / 'tables').rename(tables / 'v1.0-mini')
    line = said()
    assert f'one level deeper, in {tables}/v1.0-mini. Move them to {tables}' in line
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('table', ['lidarseg', 'panoptic'])
def test_tables_that_are_not_needed_are_ignored(copy_of_root, tmp_path, info_dir, table):
    rows = [dict(token='x', filename='lidarseg/v1.0-mini/x.bin', sample_data_token='x')]
    (copy_of_root / f'v1.0-mini/{table}.json').write_text(json.dumps(rows))
    kwargs = dict(root=copy_of_root, version='v1.0-mini', workers=1, image_sweeps=True)
    _, val = create_infos(**kwargs, out_dir=tmp_path / 'out')
    assert load_info_file(val) == load_info_file(info_dir / 'nuscenes_infos_val.parquet')


def no_lidar(row):
    return row['token'] != 'scene-0061-LIDAR_TOP-0'


def first(token, **values):
    return lambda row: row.update(values) if row['token'] == token else None


NAN = float('nan')


@pytest.mark.parametrize(
    ('table', 'change', 'words'),
    [
        ('sample_data', no_lidar, 'no key frame of LIDAR_TOP'),
        ('sample_annotation', first('scene-0061-ann2-0', translation=[1, NAN, 1]), '3 finite'),
        ('sample_annotation', first('scene-0061-ann2-0', size=[1, NAN, 1]), 'size is'),
        ('sample_annotation', first('scene-0061-ann2-0', size=[1, None, 1]), 'size is'),
        ('sample_annotation', first('scene-0061-ann2-0', rotation=[0, 0, 0, 0]), 'no direction'),
        ('ego_pose', first('scene-0061-CAM_BACK-0', rotation=[0, 0, 0, 0]), 'no direction'),
        ('ego_pose', first('scene-0061-LIDAR_TOP-0', translation=[]), '3 finite'),
    ],
)
def test_a_bad_row_is_named_and_its_sample_skipped(copy_of_root, tmp_path, table, change, words):
    edit(copy_of_root / 'v1.0-mini', table, change)
    if table == 'sample_data':
        link = first('scene-0061-LIDAR_TOP-1', prev='')
        edit(copy_of_root / 'v1.0-mini', table, link)
    kwargs = dict(root=copy_of_root, version='v1.0-mini', out_dir=tmp_path / 'out', workers=1)
    kwargs |= dict(image_sweeps=True, max_sweeps=0)
    with pytest.raises(DataError, match=rf'{table}.json.*scene-0061.*{words}.*--on-error skip'):
        create_infos(**kwargs)
    paths = create_infos(**kwargs, on_error='skip', max_failed_share=0.5)
    assert [len(load_info_file(path)['data_list']) for path in paths] == [1, 2]


def dropped(token):
    return lambda row: row['token'] != token


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (first('scene-0061-CAM_BACK-1', rotation=[0, 0, 0, 0]), 'ego_pose.json.*no direction'),
        (dropped('scene-0061-CAM_BACK-1'), "image sweep scene-0061-CAM_BACK-1 refers to '"),
        (None, r'CAM_BACK-1\.jpg.*absent'),
    ],
)
def test_a_bad_image_sweep_is_named_and_its_sample_skipped(copy_of_root, tmp_path, change, words):
    if change:
        edit(copy_of_root / 'v1.0-mini', 'ego_pose', change)
    else:
        (copy_of_root / 'sweeps/CAM_BACK/scene-0061-CAM_BACK-1.jpg').unlink()
    kwargs = dict(root=copy_of_root, version='v1.0-mini', out_dir=tmp_path / 'out', workers=1)
    kwargs |= dict(image_sweeps=True, max_sweeps=0)
    with pytest.raises(DataError, match=words):
        create_infos(**kwargs)
    with pytest.raises(DataError, match='1 of 4 samples failed'):
        create_infos(**kwargs, on_error='skip')
    train, val = create_infos(**kwargs, on_error='skip', max_failed_share=0.5)
    assert [i['token'] for i in load_info_file(train)['data_list']] == ['scene-0061-sample0']
    assert len(load_info_file(val)['data_list']) == 2


@pytest.mark.parametrize(
    ('table', 'change', 'words'),
    [
        ('sample', first('scene-0061-sample0', next='x'), "scene scene-0061 refers to 'x'"),
        ('scene', first('scene-0061', first_sample_token='x'), "scene scene-0061 refers to 'x'"),
        ('sample_data', first('scene-0061-CAM_BACK-0', next='x'), "chain of .* refers to 'x'"),
        (
            'sample_data',
            first('scene-0061-CAM_BACK-0', next='scene-0061-CAM_BACK-0'),
            'chain of .* twice',
        ),
    ],
)
@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_a_broken_chain_of_rows_stops_with_its_name(
    copy_of_root, tmp_path, table, change, words, on_error
):
    edit(copy_of_root / 'v1.0-mini', table, change)
    kwargs = dict(root=copy_of_root, version='v1.0-mini', out_dir=tmp_path / 'out', workers=1)
    with pytest.raises(DataError, match=words):
        create_infos(**kwargs, image_sweeps=True, max_sweeps=0, on_error=on_error)


@pytest.mark.parametrize('value', [[], [[NAN] * 3] * 3, [[1, 0], [0, 1]]])
def test_a_camera_without_intrinsics_is_named(copy_of_root, tmp_path, value):
    edit(copy_of_root / 'v1.0-mini', 'calibrated_sensor', first('CAM_BACK', camera_intrinsic=value))
    kwargs = dict(root=copy_of_root, version='v1.0-mini', out_dir=tmp_path / 'out', workers=1)
    with pytest.raises(DataError, match='calibrated_sensor.json: CAM_BACK: camera_intrinsic is'):
        create_infos(**kwargs)
    with pytest.raises(DataError, match='4 of 4 samples failed'):
        create_infos(**kwargs, on_error='skip')


@pytest.mark.parametrize(
    ('table', 'change'),
    [
        ('scene', lambda rows: rows[0].pop('name')),
        ('scene', lambda rows: rows[0].pop('first_sample_token')),
        ('scene', lambda rows: rows[0].update(first_sample_token=[1])),
        ('calibrated_sensor', lambda rows: [row.update(translation=[10**400] * 3) for row in rows]),
        ('sample_annotation', lambda rows: [row.update(num_radar_pts='x') for row in rows]),
    ],
)
def test_garbled_rows_are_one_line(copy_of_root, tmp_path, table, change):
    path = copy_of_root / 'v1.0-mini' / f'{table}.json'
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r'v1\.0-mini'):
        create_infos(root=copy_of_root, version='v1.0-mini', out_dir=tmp_path / 'out', workers=1)


def test_a_chain_that_bites_its_tail_ends(copy_of_root, tmp_path):
    path = copy_of_root / 'v1.0-mini' / 'sample.json'
    rows = json.loads(path.read_text())
    for row in rows:
        row['next'] = row['next'] or row['token']
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match='as the one after itself'):
        create_infos(
            root=copy_of_root, version='v1.0-mini', out_dir=tmp_path / 'out', on_error='skip',
            workers=1,
        )  # fmt: skip


@pytest.mark.parametrize('value', [[[1, 0], [0]], 'x', {'a': 1}, [[10**400] * 3] * 3])
def test_garbled_matrices_name_the_image(nuscenes_root, info_dir, tmp_path, value):
    info = load_info_file(info_dir / 'nuscenes_infos_train.parquet')
    image = info['data_list'][0]['images']['CAM_FRONT']
    for name in ('cam2img', 'lidar2cam', 'lidar2img'):
        before, image[name] = image[name], value
        (tmp_path / 'x.pkl').write_bytes(pickle.dumps(info))
        data = NuScenesImages(
            ann_file=str(tmp_path / 'x.pkl'), data_root=str(nuscenes_root), cameras=['CAM_FRONT']
        )
        with pytest.raises(DataError, match=r'CAM_FRONT-0\.jpg'):
            data.get_data_info(0)
        image[name] = before
