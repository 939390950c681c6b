"""The data set on frames, made and real: conventions, bad boxes, empty frames, foreign files."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from nuscenes import NuScenes

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.detection import SurroundNuScenesDataset

PACK = {'type': 'Pack3DDetInputs', 'keys': ['gt_bboxes_3d', 'gt_labels_3d']}
PIPELINE = [{'type': 'LoadAnnotations3D', 'with_bbox_3d': True, 'with_label_3d': True}, PACK]


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet3d')


def _dataset(ann_file: Path, root: Path | str = '', **kwargs) -> SurroundNuScenesDataset:
    return SurroundNuScenesDataset(
        data_root=str(root),
        ann_file=str(ann_file),
        modality={'use_camera': True, 'use_lidar': False},
        **{'pipeline': PIPELINE, **kwargs},
    )


def _altered(frame_infos: Path, tmp_path: Path, change) -> Path:
    content = copy.deepcopy(load_info_file(frame_infos))
    content['data_list'] = content['data_list'][:1]
    change(content['data_list'][0])
    path = tmp_path / 'altered.pkl'
    write_info_file(path, content['metainfo'], content['data_list'])
    return path


def test_boxes_agree_with_the_devkit(frame_root: Path, frame_infos: Path) -> None:
    """Centre of gravity, length and width, yaw: every annotation, against nuscenes-devkit."""
    dataset = _dataset(frame_infos, frame_root, test_mode=True)
    annotations = dataset.get_data_info(0)['eval_ann_info']
    boxes = annotations['gt_bboxes_3d']
    nusc = NuScenes('v1.0-mini', str(frame_root), verbose=False)
    sample = nusc.get('sample', dataset.get_data_info(0)['token'])
    _, devkit_boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    by_place = {tuple(np.round(box.center, 2)): box for box in devkit_boxes}
    assert len(boxes) > 30
    for centre, dims, yaw in zip(
        boxes.gravity_center.numpy(), boxes.dims.numpy(), boxes.yaw.numpy(), strict=True
    ):
        nearest = min(by_place.values(), key=lambda box: np.linalg.norm(box.center - centre))
        assert np.allclose(nearest.center, centre, atol=1e-3)
        assert np.allclose(nearest.wlh, dims[[1, 0, 2]], atol=1e-4)
        # The devkit's box also leans with the road; its heading in the plane is the yaw.
        heading = nearest.rotation_matrix[:2, 0]
        difference = np.arctan2(heading[1], heading[0]) - yaw
        assert abs(np.sin(difference)) < 1e-3
        assert np.cos(difference) > 0.99


def test_version_comes_from_the_file(frame_root: Path, frame_infos: Path) -> None:
    dataset = _dataset(frame_infos, frame_root)
    assert dataset.metainfo['version'] == 'v1.0-mini'
    assert 'cameras' not in dataset.metainfo


def test_cameras_of_the_pipeline_are_recorded(frame_infos: Path) -> None:
    cameras = ['CAM_BACK', 'CAM_FRONT']
    loader = {'type': 'LoadSurroundImages', 'cameras': cameras}
    dataset = _dataset(frame_infos, pipeline=[loader, *PIPELINE])
    assert dataset.metainfo['cameras'] == cameras


@pytest.mark.parametrize('size', [[0.0, 1.9, 1.6], [4.0, -1.0, 1.6], [4.0, 1.9, np.nan]])
def test_boxes_without_size_are_dropped_or_refused(
    frame_infos: Path, tmp_path: Path, size: list[float]
) -> None:
    def spoil(info: dict) -> None:
        valid = [i for i, instance in enumerate(info['instances']) if instance['bbox_3d_isvalid']]
        info['instances'][valid[0]]['bbox_3d'][3:6] = size

    path = _altered(frame_infos, tmp_path, spoil)
    whole = len(_dataset(frame_infos).get_data_info(0)['ann_info']['gt_labels_3d'])
    assert len(_dataset(path).get_data_info(0)['ann_info']['gt_labels_3d']) == whole - 1
    with pytest.raises(DataError, match='altered.pkl: 1 boxes have no positive finite size'):
        _dataset(path, bad_boxes='error')


def test_a_frame_without_objects_is_trained_on(frame_infos: Path, tmp_path: Path) -> None:
    path = _altered(frame_infos, tmp_path, lambda info: info['instances'].clear())
    sample = _dataset(path)[0]['data_samples']
    assert sample.gt_instances_3d.bboxes_3d.tensor.shape == (0, 9)
    assert len(sample.gt_instances_3d.labels_3d) == 0


def test_boxes_of_the_old_convention_are_refused(frame_infos: Path, tmp_path: Path) -> None:
    """Before mmdet3d 1.0 width came first; mAP survives that, NDS does not."""

    def swap(info: dict) -> None:
        car = copy.deepcopy(info['instances'][0])
        car['bbox_label_3d'] = 0
        car['bbox_3d'][3:6] = [1.9, 4.5, 1.6]
        info['instances'] = [copy.deepcopy(car) for _ in range(12)]

    path = _altered(frame_infos, tmp_path, swap)
    with pytest.raises(DataError, match='cars are 1.90 m long and 4.50 m wide'):
        _dataset(path)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'evil.pkl'
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / 'owned').encode() + b"'\ntR.")
    with pytest.raises(DataError, match='foreign global'):
        _dataset(path)
    assert not (tmp_path / 'owned').exists()


def test_unknown_policy() -> None:
    with pytest.raises(ValueError, match="'drop' or 'error'"):
        SurroundNuScenesDataset(data_root='', ann_file='', bad_boxes='ignore')


def test_samples_kept_in_memory_are_prepared_once(
    frame_infos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _dataset(frame_infos, keep_in_memory=True)
    first = dataset[0]
    expected = first['data_samples'].gt_instances_3d.labels_3d.clone()
    monkeypatch.setattr(dataset, 'prepare_data', None)  # would fail if called again
    first['data_samples'].gt_instances_3d.labels_3d.fill_(-1)  # a copy: the kept one stays
    assert dataset[0]['data_samples'].gt_instances_3d.labels_3d.equal(expected)


def test_random_samples_are_not_kept(frame_infos: Path) -> None:
    turn = {
        'type': 'MultiViewGlobalRotScale',
        'rotation_range': (-0.4, 0.4),
        'scale_range': (0.9, 1.1),
    }
    with pytest.raises(ValueError, match='would repeat the first draw of MultiViewGlobalRotScale'):
        _dataset(frame_infos, pipeline=[turn, *PIPELINE], keep_in_memory=True)
