"""OpenMMLab's own tools and functions, unchanged, with our configs and our checkpoints."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.test_packaging.tiny_runs import detection, pretraining, python, run, segmentation

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent


def needs_ops_at_import() -> None:
    """mmdet3d's tools and mmseg's inferencer import ``mmcv.ops`` before they read a config."""
    folder = Path(importlib.util.find_spec('mmcv').origin).parent
    if not list(folder.glob('_ext.*')):
        pytest.skip('mmcv-lite without `python -m s3pt_mm.hosts.mmcv_ext`, which make setup runs')


@pytest.fixture(scope='module')
def work(tmp_path_factory) -> Path:
    """Where the tools run; not the checkout."""
    return tmp_path_factory.mktemp('work')


@pytest.fixture(scope='module')
def pretrained(work, toydrive, repository) -> Path:
    """Work folder of S3PT, trained by ``mim train mmpretrain``."""
    config = repository / 'configs/toydrive/s3pt_vitt16.py'
    command = (BIN / 'mim', 'train', 'mmpretrain', config, '--gpus', '0')
    options = [*pretraining(toydrive / 'nuscenes'), 'model.queue_images=8']
    run(*command, '--work-dir', work / 'pre', '--cfg-options', *options, cwd=work)
    assert (work / 'pre' / 'epoch_1.pth').is_file()
    return work / 'pre'


@pytest.fixture(scope='module')
def segmented(work, toydrive, pretrained, repository) -> Path:
    """Work folder of a linear probe, trained by ``mim train mmsegmentation``."""
    config = repository / 'configs/toydrive/linear_vitt16_nuimages.py'
    options = segmentation(toydrive / 'nuimages', pretrained / 'epoch_1.pth')
    command = (BIN / 'mim', 'train', 'mmsegmentation', config, '--gpus', '0')
    run(*command, '--work-dir', work / 'seg', '--cfg-options', *options, cwd=work)
    return work / 'seg'


@pytest.fixture(scope='module')
def detected(work, toydrive, pretrained, repository) -> Path:
    """Work folder of PETR, trained by ``mim train mmdet3d``."""
    needs_ops_at_import()
    config = repository / 'configs/toydrive/petr_vitt16.py'
    command = (BIN / 'mim', 'train', 'mmdet3d', config, '--gpus', '0')
    options = detection(toydrive / 'nuscenes', pretrained / 'epoch_1.pth')
    run(*command, '--work-dir', work / 'det', '--cfg-options', *options, cwd=work)
    return work / 'det'


def test_mmpretrain_functions(pretrained, work, toydrive) -> None:
    """``get_model``, and ``FeatureExtractor``, which reads a test pipeline from the config."""
    image = next((toydrive / 'nuimages').rglob('*.jpg'))
    text = python(
        """
import sys, mmpretrain
config, checkpoint, image = sys.argv[1:]
from mmengine.config import Config
config = Config.fromfile(config)
print(type(mmpretrain.get_model(config, pretrained=checkpoint)).__name__)
resize = dict(type='Resize', scale=(128, 128))
steps = [dict(type='LoadImageFromFile'), resize, dict(type='PackInputs')]
config.test_dataloader = dict(dataset=dict(pipeline=steps))
features = mmpretrain.FeatureExtractor(config, pretrained=checkpoint)(image)[0]
print(tuple(features[0].shape))
""",
        pretrained / 's3pt_vitt16.py',
        pretrained / 'epoch_1.pth',
        image,
        cwd=work,
    )
    assert 'S3PT' in text and '(65, 128)' in text, text


def test_mmseg_functions(segmented, work, toydrive) -> None:
    """``inference_model`` and ``MMSegInferencer``, by path and by array."""
    needs_ops_at_import()
    image = next((toydrive / 'nuimages').rglob('*.jpg'))
    text = python(
        """
import sys, mmcv
from mmseg.apis import MMSegInferencer, inference_model, init_model
config, checkpoint, image = sys.argv[1:]
model = init_model(config, checkpoint, device='cpu')
print(inference_model(model, image).pred_sem_seg.shape)
print(MMSegInferencer(config, checkpoint, device='cpu')(mmcv.imread(image))['predictions'].shape)
""",
        segmented / 'linear_vitt16_nuimages.py',
        segmented / 'iter_2.pth',
        image,
        cwd=work,
    )
    assert text.count('900, 1600') == 2, text


def test_mmdet3d_functions(detected, work) -> None:
    """``init_model``, and the runner from the config alone."""
    text = python(
        """
import sys
from mmdet3d.apis import init_model
config, checkpoint = sys.argv[1:]
print(type(init_model(config, checkpoint, device='cpu')).__name__)
from mmengine.config import Config
from mmengine.runner import Runner
config = Config.fromfile(config)
config.work_dir, config.load_from = 'runner', checkpoint
print('metrics', list(Runner.from_cfg(config).val()))
""",
        detected / 'petr_vitt16.py',
        detected / 'iter_1.pth',
        cwd=work,
    )
    assert 'S3PTPETR' in text and 'subset/mAP' in text, text
