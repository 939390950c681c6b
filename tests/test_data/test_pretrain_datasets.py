"""NuScenesImages, ImageFolderDataset, info files and the error policy."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.resume.keyed_sampler import KeyedIndex
from tests.nuscenes_tables import CAMERAS, write_jpeg

PIPELINE = [
    {'type': 'SeedFromIndex'},
    {'type': 'LoadImage'},
    {'type': 'LoadLidar'},
    {'type': 'TwoViews', 'size': 96},
    {'type': 'TokenGeometry'},
    {'type': 'PackViews'},
]


@pytest.fixture
def settings(nuscenes_root, info_dir):
    return {
        'type': 'NuScenesImages',
        'data_root': str(nuscenes_root),
        'ann_file': str(info_dir / 'nuscenes_infos_train.parquet'),
    }


@pytest.fixture
def copy_settings(settings, nuscenes_root, tmp_path):
    """The same on a copy that a test may damage."""
    root = shutil.copytree(nuscenes_root, tmp_path / 'copy')
    return {**settings, 'data_root': str(root)}


def test_item_has_the_contract_fields(settings, nuscenes_root):
    dataset = DATASETS.build(settings)
    assert len(dataset) == 12
    item = dataset.get_data_info(3)
    assert item['cam'] == CAMERAS[3] and item['token'] == 'scene-0061-sample0'
    assert item['sample_idx'] == 3 and item['ori_size'] == (640, 360)
    assert item['img_path'] == str(nuscenes_root / 'samples/CAM_BACK/scene-0061-CAM_BACK-0.jpg')
    assert item['cam2img'].shape == (3, 3) and item['lidar_points']['lidar2cam'].shape == (4, 4)
    path = nuscenes_root / 'samples/LIDAR_TOP/scene-0061-LIDAR_TOP-0.pcd.bin'
    assert item['lidar_points']['lidar_path'] == str(path)
    assert item['lidar_points']['num_pts_feats'] == 5


def test_options_choose_images(settings):
    assert len(DATASETS.build({**settings, 'cameras': ['CAM_FRONT']})) == 2
    with_sweeps = DATASETS.build({**settings, 'image_sweeps': True})
    assert len(with_sweeps) == 18
    for index in range(18):
        item = with_sweeps.get_data_info(index)
        assert os.path.isfile(item['img_path'])
        assert os.path.isfile(item['lidar_points']['lidar_path'])
    plain = DATASETS.build({**settings, 'with_lidar': False})
    assert 'lidar_points' not in plain.get_data_info(0)
    assert len(DATASETS.build({**settings, 'indices': 5})) == 5


def test_relative_paths_in_own_logs(tmp_path):
    """A hand-written file: own folders, a camera name of one's own, (3, 4) intrinsics, 4 floats."""
    write_jpeg(tmp_path / 'front/1.jpg', 0)
    np.zeros((10, 4), np.float32).tofile(tmp_path / 'scan.bin')
    image = {'img_path': 'front/1.jpg', 'cam2img': np.eye(3, 4).tolist(), 'lidar2cam': np.eye(4)}
    info = {
        'token': 'a',
        'images': {'front': image},
        'lidar_points': {'lidar_path': 'scan.bin', 'num_pts_feats': 4},
    }
    write_info_file(tmp_path / 'infos.pkl', {}, [info])
    dataset = NuScenesImages(
        data_root=str(tmp_path),
        ann_file='infos.pkl',
        data_prefix={'img': '', 'pts': ''},
        pipeline=PIPELINE,
    )
    assert os.path.isfile(dataset.get_data_info(0)['img_path'])
    assert not dataset[0]['data_samples'].token_has_depth.any()


def test_packed_sample(settings):
    dataset = DATASETS.build({**settings, 'pipeline': PIPELINE})
    packed = dataset[KeyedIndex(0, seed=1, epoch=2)]
    assert [(view.shape, view.dtype) for view in packed['inputs']] == 2 * [
        ((3, 96, 96), torch.uint8)
    ]
    sample = packed['data_samples']
    assert sample.token_xy.shape == (2, 36, 2) and sample.token_xy.dtype == torch.float32
    assert sample.token_depth.shape == (2, 36) and sample.token_depth.dtype == torch.float32
    assert sample.token_has_depth.dtype == torch.bool and sample.token_has_depth.any()
    assert (sample.token_depth[sample.token_has_depth] > 1).all()
    assert (sample.token_depth[~sample.token_has_depth] == 0).all()
    assert sample.sample_seed.shape == () and sample.sample_seed.dtype == torch.int64
    # With its key: a report of a bad batch can name what gives the same views again.
    assert (sample.sample_idx, sample.sample_idx.seed, sample.sample_idx.epoch) == (0, 1, 2)
    assert sample.img_path.endswith('.jpg')


def test_sample_depends_on_the_key_alone(settings):
    """Not on what was drawn before, on workers or on the process."""
    dataset = DATASETS.build({**settings, 'pipeline': PIPELINE})
    keys = [KeyedIndex(i, seed=3, epoch=1) for i in range(4)]
    first = [dataset[key] for key in keys]
    np.random.rand(7), torch.rand(3)
    loader = DataLoader(
        dataset, batch_size=1, sampler=keys[::-1], num_workers=2, collate_fn=lambda batch: batch[0]
    )
    for ours, theirs in zip(first, list(loader)[::-1], strict=True):
        for a, b in zip(ours['inputs'], theirs['inputs'], strict=True):
            assert torch.equal(a, b)
        assert torch.equal(ours['data_samples'].token_depth, theirs['data_samples'].token_depth)
        assert ours['data_samples'].sample_seed == theirs['data_samples'].sample_seed
    other_epoch = dataset[KeyedIndex(0, seed=3, epoch=2)]
    assert not torch.equal(first[0]['inputs'][0], other_epoch['inputs'][0])


def test_image_folder(tmp_path):
    for name in ('b/2.jpg', 'a/1.JPG', 'a/deep/3.png', '.hidden.jpg', 'notes.txt'):
        write_jpeg(tmp_path / 'tmp.jpg', len(name))
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(tmp_path / 'tmp.jpg', tmp_path / name)
    os.symlink(tmp_path, tmp_path / 'a/loop')
    dataset = ImageFolderDataset(data_root=str(tmp_path), pipeline=PIPELINE)
    assert [dataset.get_data_info(i)['token'] for i in range(3)] == [
        'a/1.JPG',
        'a/deep/3.png',
        'b/2.jpg',
    ]
    assert len(dataset) == 3
    sample = dataset[0]['data_samples']
    assert not sample.token_has_depth.any() and not sample.token_depth.any()


def test_no_images(tmp_path):
    with pytest.raises(DataError, match=f'{tmp_path}.*no images'):
        ImageFolderDataset(data_root=str(tmp_path))
    with pytest.raises(DataError, match='no such folder'):
        ImageFolderDataset(data_root=str(tmp_path / 'absent'))


# ---- info files ---------------------------------------------------------------------------------


def test_refuses_foreign_globals(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'executed'),)

    path = tmp_path / 'infos.pkl'
    path.write_bytes(pickle.dumps({'metainfo': {}, 'data_list': [Evil()]}))
    with pytest.raises(DataError, match=r'infos\.pkl.*foreign global posix\.mkdir'):
        load_info_file(path)
    assert not (tmp_path / 'executed').exists()


def test_reads_numpy_of_every_protocol(tmp_path):
    content = {
        'metainfo': {},
        'data_list': [{'a': np.eye(3), 'b': np.float32(2), 'c': np.array(['x'])}],
    }
    for protocol in (3, 4, 5):
        (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(content, protocol=protocol))
        loaded = load_info_file(tmp_path / 'infos.pkl')['data_list'][0]
        np.testing.assert_array_equal(loaded['a'], np.eye(3))
        assert loaded['b'] == 2 and loaded['c'][0] == 'x'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'infos': [], 'metadata': {}}, "old format .*'infos'"),
        ({'metainfo': {'info_version': '7.0'}, 'data_list': []}, r'info_version is 7\.0'),
        ([1, 2], r"'metainfo' and 'data_list', found list"),
        (
            {'metainfo': {}, 'data_list': [{'token': 't'}]},
            r"sample 0 \('t'\) .*KeyError: 'images'",
        ),
        ({'metainfo': {}, 'data_list': [5]}, r'sample 0 \(5\)'),
    ],
)
def test_other_versions_are_named(tmp_path, content, message):
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        NuScenesImages(ann_file=str(tmp_path / 'infos.pkl'))


def test_torn_or_missing_info_file(tmp_path, info_dir):
    path = tmp_path / 'infos.pkl'
    with pytest.raises(DataError, match='no such info file'):
        load_info_file(path)
    path.write_bytes((info_dir / 'nuscenes_infos_train.parquet').read_bytes()[:1000])
    with pytest.raises(DataError, match='not a readable pickle'):
        load_info_file(path)


def test_sweeps_must_be_in_the_file(settings, info_dir, tmp_path):
    infos = load_info_file(info_dir / 'nuscenes_infos_train.parquet')
    for info in infos['data_list']:
        del info['image_sweeps']
    write_info_file(tmp_path / 'plain.pkl', infos['metainfo'], infos['data_list'])
    with pytest.raises(DataError, match='--image-sweeps'):
        DATASETS.build({**settings, 'ann_file': str(tmp_path / 'plain.pkl'), 'image_sweeps': True})


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'infos.pkl'
    write_info_file(path, {}, [{'a': 1}])
    with pytest.raises(Exception, match='pickle'):
        write_info_file(path, {}, [{'a': lambda: 0}])
    assert load_info_file(path)['data_list'] == [{'a': 1}]
    assert os.listdir(tmp_path) == ['infos.pkl']


# ---- bad files ----------------------------------------------------------------------------------


def damage(root, what):
    image = os.path.join(root, 'samples/CAM_FRONT/scene-0061-CAM_FRONT-0.jpg')
    lidar = os.path.join(root, 'samples/LIDAR_TOP/scene-0061-LIDAR_TOP-0.pcd.bin')
    if what == 'no image':
        os.unlink(image)
    elif what == 'empty image':
        open(image, 'w').close()
    elif what == 'torn image':
        os.truncate(image, os.path.getsize(image) // 2)
    elif what == 'zeroed image':  # as file systems leave it after a crash: right length, no content
        size = os.path.getsize(image)
        os.truncate(image, size // 2)
        os.truncate(image, size)
    elif what == 'text image':
        with open(image, 'w') as file:
            file.write('<html>404</html>')
    elif what == 'other size':
        write_jpeg(Path(image), 0, width=320, height=180)
    elif what == 'no lidar':
        os.unlink(lidar)
    elif what == 'empty lidar':
        open(lidar, 'w').close()
    elif what == 'torn lidar':
        os.truncate(lidar, os.path.getsize(lidar) - 6)
    elif what == 'nan lidar':
        points = np.fromfile(lidar, np.float32)
        points[[5, 11, 12]] = np.nan, np.inf, np.nan
        points.tofile(lidar)


FAULTS = [
    ('no image', 'CAM_FRONT-0.jpg: cannot read the image .*s3pt-check'),
    ('empty image', 'CAM_FRONT-0.jpg: the file is empty'),
    ('torn image', r'CAM_FRONT-0.jpg: the JPEG is torn or damaged'),
    ('zeroed image', 'CAM_FRONT-0.jpg: the JPEG is torn'),
    ('text image', 'CAM_FRONT-0.jpg: not a readable image'),
    ('other size', '320 x 180 pixels, the info file says 640 x 360'),
    ('no lidar', 'LIDAR_TOP-0.pcd.bin: cannot read .*with_lidar=False'),
    ('empty lidar', 'LIDAR_TOP-0.pcd.bin: the LiDAR sweep is empty'),
    ('torn lidar', '79994 bytes are no multiple of 5 float32'),
    ('nan lidar', '2 of 4000 points are NaN'),
]


@pytest.mark.parametrize(('what', 'message'), FAULTS)
def test_fault_is_named_with_file_and_remedy(copy_settings, what, message):
    damage(copy_settings['data_root'], what)
    dataset = DATASETS.build({**copy_settings, 'pipeline': PIPELINE})
    with pytest.raises(DataError, match=message):
        dataset[0]
    assert dataset[7] is not None


def test_image_smaller_than_a_view(tmp_path):
    write_jpeg(tmp_path / 'small.jpg', 0, width=300, height=90)
    dataset = ImageFolderDataset(data_root=str(tmp_path), pipeline=PIPELINE)
    with pytest.raises(DataError, match=r'small\.jpg.*300 x 90 pixels, a view 96 x 96'):
        dataset[0]
    pipeline = [dict(step) for step in PIPELINE]
    pipeline[3]['allow_enlarging'] = True
    enlarged = ImageFolderDataset(data_root=str(tmp_path), pipeline=pipeline)[0]
    assert enlarged['inputs'][0].shape == (3, 96, 96)


def test_nan_in_the_calibration(info_dir, settings, tmp_path):
    infos = load_info_file(info_dir / 'nuscenes_infos_train.parquet')
    infos['data_list'][0]['images']['CAM_FRONT']['lidar2cam'][1][2] = float('nan')
    write_info_file(tmp_path / 'nan.pkl', infos['metainfo'], infos['data_list'])
    dataset = DATASETS.build({**settings, 'ann_file': str(tmp_path / 'nan.pkl')})
    with pytest.raises(DataError, match='lidar2cam must be 4 x 4 finite numbers'):
        dataset[0]


# ---- policy -------------------------------------------------------------------------------------


def test_skip_counts_logs_and_goes_on(copy_settings, caplog):
    damage(copy_settings['data_root'], 'torn image')
    dataset = DATASETS.build(
        {**copy_settings, 'pipeline': PIPELINE, 'on_error': 'skip', 'max_failed_share': 0.1}
    )
    for epoch in range(3):  # the same image each time counts once
        packed = dataset[KeyedIndex(0, seed=0, epoch=epoch)]
        assert packed['data_samples'].img_path != dataset.get_data_info(0)['img_path']
    assert dataset.num_failed == 1
    again = dataset[KeyedIndex(0, seed=0, epoch=2)]
    assert torch.equal(again['inputs'][0], packed['inputs'][0])  # the stand-in is keyed too


def test_skip_counts_over_workers_and_stops_above_the_share(copy_settings):
    root = copy_settings['data_root']
    for name in CAMERAS[:3]:
        os.unlink(os.path.join(root, f'samples/{name}/scene-0061-{name}-0.jpg'))
    settings = {**copy_settings, 'pipeline': PIPELINE, 'on_error': 'skip'}
    tolerant = DATASETS.build({**settings, 'max_failed_share': 0.25})
    loader = DataLoader(tolerant, batch_size=1, num_workers=2, collate_fn=lambda batch: batch[0])
    assert len(list(loader)) == 12 and tolerant.num_failed == 3
    strict = DATASETS.build({**settings, 'max_failed_share': 0.24})
    with pytest.raises(RuntimeError, match=r'3 of 12 images failed.*\n?.*max_failed_share=0\.24'):
        [strict[index] for index in range(12)]


def test_a_bug_is_not_skipped(settings):
    def broken(results):
        raise ValueError('a bug')

    dataset = DATASETS.build({**settings, 'pipeline': [broken], 'on_error': 'skip'})
    with pytest.raises(ValueError, match='a bug'):
        dataset[0]


def test_policy_names_are_checked(settings):
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', got 'ignore'"):
        DATASETS.build({**settings, 'on_error': 'ignore'})
    with pytest.raises(ValueError, match='max_failed_share'):
        DATASETS.build({**settings, 'max_failed_share': 2})
