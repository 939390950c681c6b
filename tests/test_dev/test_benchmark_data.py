"""The benchmark compares like with like, and restores the thread settings."""

import cv2
import torch
from PIL import Image

from s3pt_mm.data.datasets.nuscenes_images import NuScenesImages
from s3pt_mm.data.transforms.views import MultiCropViews
from tools.dev.benchmark_data import benchmark_pipeline, cores_needed, torchvision_views

PIPELINE = [
    {'type': 'SeedFromIndex'},
    {'type': 'LoadImage'},
    {'type': 'LoadLidar'},
    {'type': 'TwoViews'},
    {'type': 'TokenGeometry'},
    {'type': 'PackViews'},
]


def test_reference_makes_the_same_views():
    views = MultiCropViews(num_local=2)
    image = Image.new('RGB', (1600, 900), (10, 200, 90))
    made = [pipeline(image) for pipeline in torchvision_views(views)]
    assert [tuple(view.shape) for view in made] == [(3, s, s) for s in (224, 224, 96, 96)]
    assert {view.dtype for view in made} == {torch.uint8}


def test_measures_both_on_the_same_files(nuscenes_root, info_dir):
    ann_file = str(info_dir / 'nuscenes_infos_train.parquet')
    dataset = NuScenesImages(data_root=str(nuscenes_root), ann_file=ann_file, pipeline=PIPELINE)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    result = benchmark_pipeline(dataset, images=3, rounds=2)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads
    assert result['images_per_second'] > 0 and len(result['ratios']) == 2
    ratio = result['images_per_second'] / result['torchvision_images_per_second']
    assert 0.5 * ratio < result['ratio'] < 2 * ratio


def test_cores_that_a_number_of_gpus_needs():
    assert cores_needed(8, 1250.0, 100.0) == 100
    assert cores_needed(1, 100.1, 100.0) == 2
