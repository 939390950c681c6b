"""Our metric against mmseg's, and over shared classes by hand."""

import json

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from s3pt_mm.data.class_mappings import load_mapping
from s3pt_mm.data.class_sets import CITYSCAPES_19, NUIMAGES_13
from s3pt_mm.segmentation.metrics import SegmentationMetric


def sample(prediction, label):
    return dict(
        pred_sem_seg=dict(data=torch.as_tensor(prediction)[None]),
        gt_sem_seg=dict(data=torch.as_tensor(label)[None]),
        img_path='x.jpg',
    )


def evaluate(metric, samples, classes):
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_equals_mmseg_and_writes_every_class(tmp_path):
    random = np.random.default_rng(0)
    classes = tuple('abcdef')
    samples = []
    for _ in range(3):
        label = random.integers(0, 5, (20, 30))
        label[:3] = 255
        samples.append(sample(random.integers(0, 5, (20, 30)), label))
    path = tmp_path / 'deep' / 'figures.json'
    ours = evaluate(SegmentationMetric(result_file=str(path)), samples, classes)
    theirs = evaluate(IoUMetric(), samples, classes)
    for key in ('mIoU', 'mAcc', 'aAcc'):
        assert ours[key] == pytest.approx(theirs[key], abs=0.006)  # mmseg rounds to 0.01
    assert np.isnan(ours['IoU/f']) and ours['mIoU'] == pytest.approx(
        np.mean([ours[f'IoU/{name}'] for name in 'abcde'])
    )
    content = json.loads(path.read_text())
    assert content['IoU/f'] is None and content['IoU/a'] == ours['IoU/a']
    assert content['classes'] == list(classes) and content['images'] == 3


def test_shared_classes_by_hand():
    """Road right, a car called barrier (a miss, no class of its own), a rider (does not count)."""
    nu, city = NUIMAGES_13.classes.index, CITYSCAPES_19.classes.index
    prediction = [[nu('driveable surface'), nu('driveable surface'), nu('barrier'), nu('car')]]
    label = [[city('road'), city('sky'), city('car'), city('rider')]]
    metric = SegmentationMetric(mapping='nuimages_to_cityscapes')
    got = evaluate(metric, [sample(prediction, label)], CITYSCAPES_19.classes)
    assert got['IoU/road'] == 50 and got['IoU/car'] == 0 and got['IoU/background'] == 0
    assert np.isnan(got['IoU/bus']) and got['mIoU'] == pytest.approx(50 / 3)
    assert got['aAcc'] == pytest.approx(100 / 3)
    assert set(k for k in got if k.startswith('IoU/')) == {
        f'IoU/{name}' for name in load_mapping('nuimages_to_cityscapes').classes
    }


def test_source_role_maps_labels_of_the_source():
    nu = NUIMAGES_13.classes.index
    pixels = [[nu('car'), nu('barrier'), nu('background')]]
    metric = SegmentationMetric(mapping='nuimages_to_cityscapes', mapping_role='source')
    got = evaluate(metric, [sample(pixels, pixels)], NUIMAGES_13.classes)
    assert got['mIoU'] == got['aAcc'] == 100 and got['IoU/car'] == 100


def test_predictions_are_kept_as_png(tmp_path):
    from PIL import Image

    metric = SegmentationMetric(output_dir=str(tmp_path / 'out'))
    evaluate(metric, [sample([[0, 1], [2, 2]], [[1, 1], [2, 2]])], ('a', 'b', 'c'))
    assert np.asarray(Image.open(tmp_path / 'out' / 'x.png')).tolist() == [[0, 1], [2, 2]]


def test_a_wrong_role_is_refused():
    with pytest.raises(ValueError, match="'both'"):
        SegmentationMetric(mapping='nuimages_to_cityscapes', mapping_role='both')
