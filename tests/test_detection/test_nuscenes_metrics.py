"""Submission, range metric and subset metric against mmdet3d's metric and nuscenes-devkit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet3d.evaluation.metrics import NuScenesMetric
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval

from s3pt_mm.data.datasets.info_file import load_info_file
from s3pt_mm.detection.data.nuscenes_dataset import SurroundNuScenesDataset
from s3pt_mm.detection.metrics.devkit import predictions
from s3pt_mm.detection.metrics.range_metric import NuScenesRangeMetric, looks_cut, range_figures
from s3pt_mm.detection.metrics.submission import (
    CAMERA_META,
    lidar_to_global,
    read_submission,
    submission_boxes,
)
from s3pt_mm.detection.metrics.subset_metric import NuScenesSubsetMetric

from .detector_samples import detector_sample, truth_samples
from .fake_tables import VERSION

CLASSES = SurroundNuScenesDataset.METAINFO['classes']
META = {'classes': CLASSES, 'version': VERSION}


def _noisy(samples: list[dict], seed: int = 0) -> list[dict]:
    """Predictions that miss a little, doubled with false ones, some classes confused."""
    generator = torch.Generator().manual_seed(seed)
    noisy = []
    for sample in samples:
        predicted = sample['pred_instances_3d']
        boxes = predicted['bboxes_3d']
        tensor = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=1)
        tensor = torch.cat([tensor, tensor])
        noise = torch.randn(tensor.shape, generator=generator)
        noise[:, 3:6] = 0
        tensor = tensor + noise * torch.tensor([0.7, 0.7, 0.2, 0, 0, 0, 0.3, 0.5, 0.5])
        tensor[:, 3:6] *= 1.1
        scores = torch.rand(len(tensor), generator=generator)
        labels = predicted['labels_3d'].repeat(2)
        lost = torch.rand(len(tensor), generator=generator) < 0.1
        labels[lost] = (labels[lost] + 1) % len(CLASSES)
        noisy.append(detector_sample(sample['token'], sample['sample_idx'], tensor, labels, scores))
    return noisy


def _run(metric: Any, samples: list[dict]) -> dict[str, float]:
    metric.dataset_meta = META
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def _mmdet3d(root: Path, samples: list[dict], out: Path) -> dict[str, float]:
    metric = NuScenesMetric(
        data_root=str(root),
        ann_file=str(root / 'nuscenes_infos_val.parquet'),
        modality=CAMERA_META,
        jsonfile_prefix=str(out),
    )
    figures = _run(metric, samples)
    prefix = 'NuScenes metric/pred_instances_3d_NuScenes/'
    return {key.removeprefix(prefix): value for key, value in figures.items()}


@pytest.fixture(scope='module')
def truth(fake_root: Path) -> list[dict]:
    return truth_samples(fake_root)


@pytest.fixture(scope='module')
def noisy(truth: list[dict]) -> list[dict]:
    return _noisy(truth)


@pytest.fixture(scope='module')
def official(
    fake_root: Path, noisy: list[dict], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, float], Path]:
    """mmdet3d's figures of the noisy predictions, and the folder of its submission."""
    out = tmp_path_factory.mktemp('official')
    return _mmdet3d(fake_root, noisy, out), out / 'pred_instances_3d'


@pytest.fixture(scope='module')
def nusc(fake_root: Path) -> NuScenes:
    return NuScenes(VERSION, str(fake_root), verbose=False)


def test_ground_truth_scores_one(fake_root: Path, truth: list[dict], tmp_path: Path) -> None:
    """Info file -> box code -> mmdet3d's metric: mAP and NDS of 1, every error 0."""
    figures = _mmdet3d(fake_root, truth, tmp_path)
    assert figures['mAP'] == pytest.approx(1.0, abs=1e-6)
    assert figures['NDS'] == pytest.approx(1.0, abs=1e-3)
    for error in ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE'):
        assert figures[error] == pytest.approx(0.0, abs=2e-3), error


def test_our_submission_equals_mmdet3ds_and_keeps_far_boxes(
    nusc: NuScenes, noisy: list[dict], official: tuple[dict, Path]
) -> None:
    theirs = json.loads((official[1] / 'results_nusc.json').read_text())
    assert theirs['meta'] == CAMERA_META
    limits = config_factory('detection_cvpr_2019').class_range
    for sample in noisy:
        token = sample['token']
        predicted = sample['pred_instances_3d']
        ours = submission_boxes(
            predicted['bboxes_3d'], predicted['scores_3d'], predicted['labels_3d'],
            token=token, lidar2global=lidar_to_global(nusc, token), classes=CLASSES,
        )  # fmt: skip
        assert len(ours) == len(predicted['labels_3d'])
        placed = predictions(nusc, {token: ours})[token]
        near = [
            box
            for box, place in zip(ours, placed, strict=True)
            if place.ego_dist <= limits[box['detection_name']]
        ]
        assert len(near) < len(ours)
        assert len(near) == len(theirs['results'][token])
        for mine, other in zip(near, theirs['results'][token], strict=True):
            for key in ('translation', 'size', 'velocity'):
                assert np.allclose(mine[key], other[key], atol=1e-4)
            assert abs(np.dot(mine['rotation'], other['rotation'])) == pytest.approx(1, abs=1e-6)
            for key in ('sample_token', 'detection_name', 'attribute_name'):
                assert mine[key] == other[key]
            assert mine['detection_score'] == pytest.approx(other['detection_score'])


def test_range_metric_at_official_ranges_is_the_official_one(
    fake_root: Path, noisy: list[dict], official: tuple[dict, Path]
) -> None:
    metric = NuScenesRangeMetric(data_root=str(fake_root), ranges=('official', 20), exclude=())
    figures = _run(metric, noisy)
    assert 0.1 < official[0]['mAP'] < 0.9
    assert figures['range/official/mAP'] == pytest.approx(official[0]['mAP'], abs=1e-6)
    for name in CLASSES:
        theirs = np.mean([official[0][f'{name}_AP_dist_{d}'] for d in (0.5, 1.0, 2.0, 4.0)])
        assert figures[f'range/official/{name}_AP'] == pytest.approx(theirs, abs=1e-4)
    assert figures['range/20m/mAP'] != pytest.approx(figures['range/official/mAP'], abs=1e-4)


def test_ranges_are_not_capped_by_the_official_ones(
    fake_root: Path, nusc: NuScenes, truth: list[dict], tmp_path: Path
) -> None:
    """Perfect predictions stay perfect at 60 m; mmdet3d's own submission loses the far ones."""
    path = tmp_path / 'all.json'
    metric = NuScenesRangeMetric(data_root=str(fake_root), submission=str(path))
    figures = _run(metric, truth)
    names = [name for name in CLASSES if name != 'construction_vehicle']
    assert {key for key in figures if '60m' in key} == {
        'range/60m/mAP', *(f'range/60m/{name}_AP' for name in names),
    }  # fmt: skip
    for limit in ('20m', '30m', '60m'):
        assert figures[f'range/{limit}/mAP'] == pytest.approx(1.0, abs=1e-6)
    assert json.loads(path.read_text())['meta'] == CAMERA_META
    assert not looks_cut(nusc, read_submission(path))

    _mmdet3d(fake_root, truth, tmp_path / 'cut')
    cut = read_submission(tmp_path / 'cut' / 'pred_instances_3d' / 'results_nusc.json')
    assert looks_cut(nusc, cut)
    table = range_figures(nusc, cut, tokens=list(cut), ranges=(60,))
    assert table['60m']['barrier'] < 0.7
    assert table['60m']['mAP'] < 0.9


def test_range_counts_only_objects_inside(nusc: NuScenes, truth: list[dict]) -> None:
    """By hand: forget every second object beyond 30 m; 20 and 30 m do not notice."""
    results = {}
    for sample in truth:
        predicted = sample['pred_instances_3d']
        boxes = submission_boxes(
            predicted['bboxes_3d'], predicted['scores_3d'], predicted['labels_3d'],
            token=sample['token'], lidar2global=lidar_to_global(nusc, sample['token']),
            classes=CLASSES,
        )  # fmt: skip
        placed = predictions(nusc, {sample['token']: boxes})[sample['token']]
        far = [number for number, box in enumerate(placed) if box.ego_dist > 30]
        results[sample['token']] = [
            box for number, box in enumerate(boxes) if number not in far[::2]
        ]
    table = range_figures(nusc, results, tokens=list(results))
    assert table['20m']['mAP'] == pytest.approx(1.0, abs=1e-6)
    assert table['30m']['mAP'] == pytest.approx(1.0, abs=1e-6)
    assert table['60m']['mAP'] < 0.95


def test_subset_metric_on_the_whole_split_is_the_official_one(
    fake_root: Path, noisy: list[dict], official: tuple[dict, Path]
) -> None:
    figures = _run(NuScenesSubsetMetric(data_root=str(fake_root)), noisy)
    for name in ('mAP', 'NDS'):
        assert figures[f'subset/{name}'] == pytest.approx(official[0][name], abs=1e-6)
    for name in ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE'):
        assert figures[f'subset/{name}'] == pytest.approx(official[0][name], abs=1e-4)


def test_tables_of_lidarseg_without_its_labels_stop_no_evaluation(
    fake_root: Path, truth: list[dict], tmp_path: Path
) -> None:
    root = shutil.copytree(fake_root, tmp_path / 'root')
    (root / VERSION / 'lidarseg.json').write_text('[{"token": "x"}]')
    figures = _run(NuScenesSubsetMetric(data_root=str(root)), truth)
    assert figures['subset/mAP'] == pytest.approx(1.0, abs=1e-6)


def test_subset_metric_on_one_scene_is_the_devkits_custom_split(
    fake_root: Path, nusc: NuScenes, noisy: list[dict], tmp_path: Path
) -> None:
    part = [sample for sample in noisy if sample['token'].startswith('scene-0103')]
    assert 0 < len(part) < len(noisy)
    path = tmp_path / 'part.json'
    figures = _run(NuScenesSubsetMetric(data_root=str(fake_root), submission=str(path)), part)
    config = config_factory('detection_cvpr_2019')
    devkit = DetectionEval(nusc, config, str(path), 'one_scene', str(tmp_path), verbose=False)
    metrics, _ = devkit.evaluate()
    assert figures['subset/mAP'] == pytest.approx(metrics.mean_ap, abs=1e-9)
    assert figures['subset/NDS'] == pytest.approx(metrics.nd_score, abs=1e-9)
    for name, value in metrics.mean_dist_aps.items():
        assert figures[f'subset/{name}_AP'] == pytest.approx(value, abs=1e-9)


def test_subset_metric_averages_over_present_classes_only(
    fake_root: Path, truth: list[dict]
) -> None:
    """With a range of 7 m nothing is left; with 9 m everything is found and the mean is 1."""
    metric = NuScenesSubsetMetric(data_root=str(fake_root), max_range=9.0)
    figures = _run(metric, truth[:1])
    present = [key for key in figures if key.endswith('_AP')]
    assert 0 < len(present) < 10
    assert figures['subset/mAP'] == pytest.approx(1.0, abs=1e-6)
    metric = NuScenesSubsetMetric(data_root=str(fake_root), max_range=0.5)
    with pytest.raises(ValueError, match='none of the 1 evaluated samples has a true box'):
        _run(metric, truth[:1])


def test_no_prediction_at_all_scores_zero(fake_root: Path, truth: list[dict]) -> None:
    nothing = torch.zeros(0, 9), torch.zeros(0, dtype=torch.long), torch.zeros(0)
    empty = [detector_sample(s['token'], 0, *nothing) for s in truth]
    figures = _run(NuScenesSubsetMetric(data_root=str(fake_root)), empty)
    assert figures['subset/mAP'] == 0.0
    figures = _run(NuScenesRangeMetric(data_root=str(fake_root)), empty)
    assert figures['range/20m/mAP'] == 0.0


def test_range_metric_wants_the_whole_split(fake_root: Path, truth: list[dict]) -> None:
    with pytest.raises(ValueError, match='1 samples without prediction'):
        _run(NuScenesRangeMetric(data_root=str(fake_root)), truth[1:])
    figures = _run(NuScenesRangeMetric(data_root=str(fake_root), split='seen'), truth[1:])
    assert figures['range/20m/mAP'] == pytest.approx(1.0, abs=1e-6)


def test_samples_are_known_by_token_and_repeats_count_once(
    fake_root: Path, noisy: list[dict], official: tuple[dict, Path]
) -> None:
    shuffled = [{**sample, 'sample_idx': 0} for sample in [*noisy[::-1], noisy[2]]]
    figures = _run(NuScenesSubsetMetric(data_root=str(fake_root)), shuffled)
    assert figures['subset/mAP'] == pytest.approx(official[0]['mAP'], abs=1e-6)


def test_mistakes_name_their_remedy(fake_root: Path, truth: list[dict], tmp_path: Path) -> None:
    metric = NuScenesSubsetMetric(data_root=str(fake_root))
    nameless = {key: value for key, value in truth[0].items() if key != 'token'}
    with pytest.raises(KeyError, match="add 'token' to meta_keys"):
        metric.process({}, [nameless])
    for bad in (-1, 0, 'devkit'):
        with pytest.raises(ValueError, match='a range is a positive number'):
            NuScenesRangeMetric(data_root='', ranges=(20, bad))
    metric = NuScenesRangeMetric(data_root=str(fake_root), exclude=('tram',))
    with pytest.raises(ValueError, match="unknown classes \\['tram'\\]"):
        _run(metric, truth)
    spoilt = detector_sample(
        truth[0]['token'], 0, torch.full((1, 9), torch.nan), torch.zeros(1).long(), torch.ones(1)
    )
    with pytest.raises(ValueError, match='not finite'):
        _run(NuScenesSubsetMetric(data_root=str(fake_root)), [spoilt])
    path = tmp_path / 'list.json'
    path.write_text('[]')
    with pytest.raises(RuntimeError, match='list.json: no nuScenes submission'):
        read_submission(path)


def test_too_many_boxes_are_refused(fake_root: Path, truth: list[dict]) -> None:
    many = detector_sample(
        truth[0]['token'], 0, torch.ones(501, 9), torch.zeros(501).long(), torch.rand(501)
    )
    with pytest.raises(ValueError, match='501 predicted boxes, nuScenes allows 500'):
        _run(NuScenesSubsetMetric(data_root=str(fake_root)), [many])


def test_info_file_has_the_poses_of_the_tables(fake_root: Path, nusc: NuScenes) -> None:
    """mmdet3d's metric takes poses from the info file, ours from the tables: they agree."""
    for info in load_info_file(fake_root / 'nuscenes_infos_val.parquet')['data_list']:
        from_info = np.array(info['ego2global']) @ np.array(info['lidar_points']['lidar2ego'])
        assert np.allclose(from_info, lidar_to_global(nusc, info['token']), atol=1e-9)
