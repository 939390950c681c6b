"""Views decoded and cut where the model is: the worker's draws, its pixels within rounding."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from PIL import Image

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.transforms import LoadImage, MultiCropViews, PackViews
from s3pt_mm.data.transforms.tokens import TokenGeometry
from s3pt_mm.kernels.device_views import decoded
from s3pt_mm.method.algorithms.token_fields import ViewsPreprocessor

CROPS = dict(size=64, num_local=1, local_size=32, max_reduction=1)


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smooth pictures of two sizes, as JPEGs."""
    folder, rng, paths = tmp_path_factory.mktemp('photos'), np.random.default_rng(0), []
    for number, (width, height) in enumerate([(160, 120), (160, 120), (128, 144)]):
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        paths.append(folder / f'{number}.jpg')
        cv2.imwrite(str(paths[-1]), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return paths


def run(paths: list[Path], **options: object) -> tuple[list[torch.Tensor], list]:
    """What a batch of these files becomes: views on the device, and its samples."""
    steps = [LoadImage(), MultiCropViews(**CROPS, **options), TokenGeometry(), PackViews()]
    items = []
    for number, path in enumerate(paths):
        np.random.seed(number)
        item = dict(img_path=str(path), sample_idx=number)
        for step in steps:
            item = step(item)
        items.append(item)
    batch = default_collate(items)
    for sample in batch['data_samples']:
        sample.set_field(torch.tensor(0), 'sample_seed')
    preprocessor = ViewsPreprocessor(mean=[0, 0, 0], std=[1, 1, 1])
    found = preprocessor(batch, True)
    return found['inputs'], found['data_samples']


@pytest.mark.parametrize('colours', [True, False])
def test_equal_to_the_workers_within_rounding(photos: list[Path], colours: bool) -> None:
    options = {} if colours else dict(jitter_prob=0, grey_prob=0, blur_prob=(0, 0))
    options |= {} if colours else dict(solarize_prob=(0, 0), local_blur_prob=0)
    worker, fields = run(photos, **options)
    device, others = run(photos, decode_on='device', **options)
    assert [view.shape for view in device] == [view.shape for view in worker]
    assert torch.equal(fields.xy, others.xy)
    assert torch.equal(fields.has_depth, others.has_depth)
    for mine, theirs in zip(device, worker, strict=True):
        difference = (mine - theirs).abs()
        # A level where two roundings part; colours stretch it, and solarising turns its edge over.
        assert difference.mean() < (1.0 if colours else 0.3)
        assert difference.quantile(0.99) <= (12 if colours else 1)
    assert worker[0].std() > 20


def test_reduced_decoding_is_the_jpegs_noise_away(photos: list[Path]) -> None:
    """The worker may decode smaller (``max_reduction=2``); the boxes are the same."""
    options = dict(jitter_prob=0, grey_prob=0, blur_prob=(0, 0), solarize_prob=(0, 0))
    reduced = dict(options, local_blur_prob=0, scale=(0.8, 1.0))
    steps = dict(CROPS, max_reduction=2, size=32, local_size=16)
    np.random.seed(3)
    item = MultiCropViews(**steps, **reduced)(LoadImage()(dict(img_path=str(photos[0]))))
    np.random.seed(3)
    full = MultiCropViews(**steps, **reduced, decode_on='device')
    cuts = full(LoadImage()(dict(img_path=str(photos[0]))))['view_cuts']
    assert np.array_equal(cuts[:, :4], item['view_boxes'])


def test_what_nvjpeg_cannot_take_is_named(tmp_path: Path, photos: list[Path]) -> None:
    picture = cv2.imread(str(photos[0]))
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / 'turned.jpg', exif=exif)
    views = MultiCropViews(**CROPS, decode_on='device')
    for name in ('a.png', 'turned.jpg'):
        item = LoadImage()(dict(img_path=str(tmp_path / name), upright=True))
        with pytest.raises(DataError, match=rf"{name}.*\n?.*decode_on='worker'"):
            views(item)
    torn = torch.from_numpy(np.frombuffer(b'\xff\xd8\xff torn', np.uint8).copy())
    with pytest.raises(RuntimeError, match=r"x\.jpg.*decode_on='worker'"):
        decoded([torn], 'cpu', ['x.jpg'])
    with pytest.raises(ValueError, match="decode_on must be .* 'gpu'"):
        MultiCropViews(**CROPS, decode_on='gpu')
