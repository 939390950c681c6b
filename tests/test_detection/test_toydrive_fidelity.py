"""On ToyDrive, which is written as nuScenes: truth scores 1, and boxes lie on their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet3d.evaluation.metrics import NuScenesMetric
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import s3pt_mm.resume.seeding  # noqa: F401  registers SeedFromIndex
from s3pt_mm.data.datasets.nuscenes_infos import create_infos
from s3pt_mm.detection.data.calibration import project
from s3pt_mm.detection.data.nuscenes_dataset import SurroundNuScenesDataset
from s3pt_mm.detection.metrics.submission import CAMERA_META
from s3pt_mm.detection.metrics.subset_metric import NuScenesSubsetMetric
from s3pt_mm.toydrive import ToyDriveConfig, generate

from .detector_samples import truth_samples
from .fake_tables import VERSION

META = {'classes': SurroundNuScenesDataset.METAINFO['classes'], 'version': VERSION}
ERRORS = ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE')


@pytest.fixture(scope='module')
def config(repository: Path, toydrive: Path) -> Config:
    """The shipped data config on ToyDrive."""
    config = Config.fromfile(repository / 'configs/_base_/detection/nuscenes_dataset.py')
    for name in ('train_dataloader', 'val_dataloader'):
        config[name].dataset.data_root = str(toydrive)
    return config


def _run(metric: object, samples: list[dict]) -> dict[str, float]:
    metric.dataset_meta = META
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def _official(root: Path) -> dict[str, float]:
    """mmdet3d's figures of the ground truth of mini_val."""
    metric = NuScenesMetric(
        data_root=str(root), ann_file=str(root / 'nuscenes_infos_val.parquet'), modality=CAMERA_META
    )
    figures = _run(metric, truth_samples(root))
    return {key.rsplit('/', 1)[1]: value for key, value in figures.items()}


def test_ground_truth_scores_one_in_every_class_that_occurs(toydrive: Path) -> None:
    """Info file -> target code -> decoded box -> metric, on mini_val of two key frames.

    So small a split lacks some classes in range, for which the official AP is 0: they are known
    from our metric over present classes, which must score 1.
    """
    samples = truth_samples(toydrive)
    ours = _run(NuScenesSubsetMetric(data_root=str(toydrive)), samples)
    assert ours['subset/mAP'] == pytest.approx(1.0, abs=1e-6)
    assert ours['subset/NDS'] == pytest.approx(1.0, abs=2e-3)
    for error in ERRORS:
        assert ours[f'subset/{error}'] == pytest.approx(0.0, abs=5e-3), error
    present = [key[7:-3] for key in ours if key.endswith('_AP')]
    assert {'car', 'truck', 'pedestrian', 'barrier'} <= set(present)
    theirs = _official(toydrive)
    for name in META['classes']:
        assert theirs[f'{name}_AP_dist_0.5'] == pytest.approx(float(name in present), abs=1e-4)


@pytest.mark.slow
def test_ground_truth_scores_one_on_streets_of_full_density(tmp_path: Path) -> None:
    """The same with mmdet3d's metric alone: at the default density every class is in range."""
    drive = dict(outputs=('nuscenes',), sweeps=0, camera_sweep_scenes=0, image_scale=0.1)
    generate(tmp_path / 'data', ToyDriveConfig.tiny(**drive, density=1.0), progress=False)
    root = tmp_path / 'data' / 'nuscenes'
    create_infos(root=root, version=VERSION, out_dir=root, workers=1)
    figures = _official(root)
    assert figures['mAP'] == pytest.approx(1.0, abs=1e-6)
    assert figures['NDS'] == pytest.approx(1.0, abs=2e-3)
    for error in ERRORS:
        assert figures[error] == pytest.approx(0.0, abs=5e-3), error


def test_augmented_pixels_are_those_the_calibration_says(config: Config) -> None:
    """Wherever a box centre lands after augmentation, the picture there is that of the original.

    A patch around the projected centre is warped back from the original image by the projection
    alone and compared with the augmented image: the two agree best at no displacement.
    """
    init_default_scope('mmdet3d')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    compared = 0
    for seed in range(3):
        np.random.seed(seed)
        packed = dataset[0]
        sample = packed['data_samples']
        images = packed['inputs']['img'].permute(0, 2, 3, 1).numpy()
        centres = sample.gt_instances_3d.bboxes_3d.gravity_center.double().numpy()
        for view, image in enumerate(images):
            new, depth = project(centres, sample.lidar2img[view])
            old, _ = project(centres, sample.ori_lidar2img[view])
            inside = (depth > 2) & (new > 24).all(1) & (new < (800 - 24, 320 - 24)).all(1)
            if inside.sum() < 3:
                continue
            original = cv2.imread(sample.img_path[view])
            original = cv2.GaussianBlur(original, (0, 0), 0.5 / sample.scale_factor[0])
            # Three box centres fix the affine map between the two pictures.
            rows = np.flatnonzero(inside)
            design = np.column_stack([old[rows], np.ones(len(rows))])
            solution, residual, rank, _ = np.linalg.lstsq(design, new[rows], rcond=None)
            if rank < 3 or np.linalg.cond(design) > 1e5:
                continue
            assert residual.max(initial=0) < 1e-4
            # OpenCV counts from pixel centres, this package from pixel corners.
            matrix = solution.T.copy()
            matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
            warped = cv2.warpAffine(original, matrix, (800, 320), flags=cv2.INTER_LINEAR)
            shift, response = _displacement(warped, image)
            if response > 0.3:
                assert np.abs(shift).max() < 0.5
                compared += 1
    assert compared >= 4


def _displacement(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    window = cv2.createHanningWindow((second.shape[1], second.shape[0]), cv2.CV_64F)
    greys = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float) for image in (first, second)]
    shift, response = cv2.phaseCorrelate(*greys, window)
    return np.array(shift), response


def test_the_key_of_a_sample_decides_its_augmentation(config: Config) -> None:
    """KeyedIndex through the shipped pipeline: same key, same sample; another epoch, another."""
    from s3pt_mm.resume.keyed_sampler import KeyedIndex

    init_default_scope('mmdet3d')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    first, again = dataset[KeyedIndex(1, 5, 0)], dataset[KeyedIndex(1, 5, 0)]
    other = dataset[KeyedIndex(1, 5, 1)]
    matrices = [item['data_samples'].lidar2img for item in (first, again, other)]
    assert np.array_equal(matrices[0], matrices[1])
    assert not np.allclose(matrices[0], matrices[2])
    assert (first['inputs']['img'] == again['inputs']['img']).all()
    assert first['data_samples'].token == other['data_samples'].token
