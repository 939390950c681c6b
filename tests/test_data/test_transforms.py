"""Transforms: views, colours, decoding, seeding; each against torchvision, Pillow or by hand."""

import io
import random

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from mmcv.transforms import Compose
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.transforms import photometric as colour
from s3pt_mm.data.transforms.image import EncodedImage, image_of
from s3pt_mm.data.transforms.tokens import TokenGeometry
from s3pt_mm.data.transforms.views import MultiCropViews, TwoViews, draw_box, resize
from s3pt_mm.resume.keyed_sampler import KeyedIndex
from s3pt_mm.resume.seeding import SeedFromIndex
from tests.nuscenes_tables import street


def encode(image: np.ndarray, quality: int = 92) -> EncodedImage:
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return EncodedImage(data.tobytes(), 'memory.jpg')


@pytest.fixture(scope='module')
def picture() -> np.ndarray:
    """(224, 224, 3) uint8 RGB."""
    return resize(street(3, 640, 640), 224)


@pytest.fixture(scope='module')
def photo() -> EncodedImage:
    return encode(street(5, 1600, 900))


# ---- colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize('factor', [0.6, 0.83, 1.0, 1.4])
@pytest.mark.parametrize('name', ['brightness', 'contrast', 'saturation'])
def test_adjustments_equal_torchvision_within_rounding(picture, name, factor):
    ours = getattr(colour, f'adjust_{name}')(picture, factor)
    theirs = getattr(TF, f'adjust_{name}')(Image.fromarray(picture), factor)
    difference = np.abs(ours.astype(int) - np.asarray(theirs))
    assert difference.max() <= 1
    assert factor == 1.0 or np.abs(ours.astype(int) - picture).max() > 5  # it did something


@pytest.mark.parametrize('shift', [-0.1, -0.04, 0.0, 0.03, 0.1, 0.5])
def test_hue_equals_torchvision_within_rounding(picture, shift):
    ours = colour.adjust_hue(picture, shift)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    theirs = TF.adjust_hue(tensor, shift).permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_grey_and_solarise_equal_pillow(picture):
    image = Image.fromarray(picture)
    grey = np.asarray(TF.to_grayscale(image, 3)).astype(int)
    assert np.abs(colour.to_grey(picture) - grey).max() <= 1
    np.testing.assert_array_equal(colour.solarise(picture), np.asarray(TF.solarize(image, 128)))


@pytest.mark.parametrize('sigma', [0.1, 0.5, 1.3, 2.0])
def test_blur_equals_torchvision(picture, sigma):
    ours = colour.gaussian_blur(picture, sigma)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    theirs = TF.gaussian_blur(tensor, [15, 15], [sigma, sigma]).permute(1, 2, 0).numpy()
    inner = slice(8, -8)  # edges are padded differently
    assert np.abs(ours.astype(int) - theirs)[inner, inner].max() <= 1


def test_photometric_draws_each_step_with_its_probability():
    view = TwoViews().photometric[1]
    drawn = [view.draw() for _ in range(2000)]
    shares = np.mean(
        [(bool(c.steps), c.grey, c.sigma is not None, c.solarize) for c in drawn], axis=0
    )
    np.testing.assert_allclose(shares, [0.8, 0.2, 0.1, 0.2], atol=0.035)


def test_a_draw_is_applied_in_its_order(picture, monkeypatch):
    calls = []
    steps = [lambda image, x, n=number: calls.append((n, x)) or image for number in range(4)]
    monkeypatch.setattr(colour, '_ADJUST', steps)
    for name in ('to_grey', 'gaussian_blur', 'solarise'):
        monkeypatch.setattr(colour, name, lambda image, *_, n=name: calls.append(n) or image)
    colours = colour.Colours(((3, 0.1), (0, 1.2)), True, 0.5, True)
    TwoViews().photometric[0].apply(picture, colours)
    assert calls == [(3, 0.1), (0, 1.2), 'to_grey', 'gaussian_blur', 'solarise']


def test_jitter_draws_orders_and_factors():
    view = TwoViews(jitter_prob=1.0).photometric[0]
    drawn = [view.draw().steps for _ in range(600)]
    assert len({tuple(step for step, _ in steps) for steps in drawn}) == 24
    for step, (low, high) in enumerate(((0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1))):
        factors = np.array([dict(steps)[step] for steps in drawn])
        span = high - low
        assert low <= factors.min() < low + 0.02 * span
        assert high - 0.02 * span < factors.max() <= high


# ---- boxes and resizing -------------------------------------------------------------------------


@pytest.mark.parametrize('scale', [(0.25, 1.0), (0.05, 0.25)])
def test_boxes_follow_torchvisions_law(scale):
    """Same areas, shapes and positions as RandomResizedCrop, in distribution."""
    size, ratio = (1600, 900), (3 / 4, 4 / 3)
    ours = np.array([draw_box(size, scale, ratio, 2) for _ in range(3000)], dtype=float)
    template = torch.empty(3, 900, 1600)
    theirs = np.array(
        [RandomResizedCrop.get_params(template, list(scale), list(ratio)) for _ in range(3000)],
        dtype=float,
    )  # y, x, h, w
    assert (ours % 2 == 0).all()
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] <= [1600, 900]).all()
    w, h = ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1]
    pairs = {
        'area': (w * h, theirs[:, 2] * theirs[:, 3]),
        'shape': (np.log(w / h), np.log(theirs[:, 3] / theirs[:, 2])),
        'x': (ours[:, 0], theirs[:, 1]),
        'y': (ours[:, 1], theirs[:, 0]),
    }
    for name, (a, b) in pairs.items():
        # Kolmogorov-Smirnov distance; 0.05 would be drawn by chance once in a thousand.
        both = np.sort(np.concatenate([a, b]))
        cdf = [np.searchsorted(np.sort(v), both, side='right') / len(v) for v in (a, b)]
        assert np.abs(cdf[0] - cdf[1]).max() < 0.05, name


def test_a_very_wide_image_gets_the_central_box():
    box = draw_box((4000, 100), (0.9, 1.0), (3 / 4, 4 / 3), 1)
    w, h = box[2] - box[0], box[3] - box[1]
    assert h == 100 and w == 133 and abs(box[0] + box[2] - 4000) <= 1


@pytest.mark.parametrize('side', [150, 224, 519, 900])
def test_resize_equals_pillow(side):
    crop = street(9, side + 40, side)
    pillow = np.asarray(Image.fromarray(crop).resize((224, 224), Image.Resampling.BICUBIC))
    difference = np.abs(resize(crop, 224).astype(int) - pillow)
    assert difference.max() <= 3 and difference.mean() < 0.05


# ---- decoding -----------------------------------------------------------------------------------


def noise_of_jpeg(image: EncodedImage) -> np.ndarray:
    """The image after one more JPEG of the same quality, on a block grid shifted by 4 pixels."""
    pixels = image.decode()
    quantisation = Image.open(io.BytesIO(image.data)).quantization
    buffer = io.BytesIO()
    shifted = np.pad(pixels, ((4, 0), (4, 0), (0, 0)), 'edge')
    Image.fromarray(shifted).save(buffer, 'JPEG', qtables=quantisation, subsampling=2)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue())))[4:, 4:]


def assert_half_decoding_is_within_jpeg_noise(image: EncodedImage) -> None:
    full, half, noisy = image.decode(), image.decode(2), noise_of_jpeg(image)
    boxes = [draw_box(image.size, (0.25, 1.0), (3 / 4, 4 / 3), 2) for _ in range(4)]
    x = 2 * np.random.randint(0, 400)
    boxes.append(np.array([x, 20, x + 692, 540]))  # the flattest crop there is: 520 rows
    for x0, y0, x1, y1 in boxes:
        view = resize(full[y0:y1, x0:x1], 224).astype(float)
        ours = resize(half[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2], 224)
        noise = resize(noisy[y0:y1, x0:x1], 224)
        assert np.square(view - ours).mean() < np.square(view - noise).mean()


def test_half_decoding_is_within_jpeg_noise(one_frame):
    for path in sorted(one_frame.glob('samples/CAM_*/*.jpg')):
        image = EncodedImage(path.read_bytes(), str(path))
        assert_half_decoding_is_within_jpeg_noise(image)


def test_reduction_leaves_every_crop_as_large_as_its_view(photo):
    views = MultiCropViews(max_reduction=8)
    boxes = np.array([[0, 0, 900, 900]] * 2 + [[0, 0, 400, 400]] * 10)
    assert views.choose_reduction(photo, boxes) == 4
    boxes[1] = [0, 0, 900, 888]
    assert views.choose_reduction(photo, boxes) == 2
    boxes[5] = [0, 0, 400, 184]
    assert views.choose_reduction(photo, boxes) == 1
    assert MultiCropViews(max_reduction=1).choose_reduction(photo, boxes) == 1


def test_reduced_views_show_the_same_place(photo, monkeypatch):
    """Every draw and box equal; only the decoder differs, by a level or so."""
    views = TwoViews(jitter_prob=0, grey_prob=0, solarize_prob=(0, 0))
    np.random.seed(1)
    half = views({'img': photo})
    monkeypatch.setattr(views, 'choose_reduction', lambda image, boxes: 1)
    np.random.seed(1)
    full = views({'img': photo})
    np.testing.assert_array_equal(half['view_boxes'], full['view_boxes'])
    np.testing.assert_array_equal(half['view_flips'], full['view_flips'])
    for a, b in zip(half['img'], full['img'], strict=True):
        difference = np.abs(a.astype(int) - b)
        assert 0 < difference.mean() < 1.5


def test_png_and_grey_images_decode():
    rgb = street(1, 300, 260)
    for image, suffix in ((rgb, '.png'), (rgb[..., 0], '.png'), (rgb[..., 0], '.jpg')):
        _, data = cv2.imencode(suffix, image)
        encoded = EncodedImage(data.tobytes(), f'x{suffix}')
        assert encoded.size == (300, 260) and encoded.decode().shape == (260, 300, 3)
        TwoViews()({'img': encoded})


def test_exif_rotation_is_ignored_like_the_calibration_does():
    image = Image.fromarray(street(2, 320, 240))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', exif=exif)
    encoded = EncodedImage(buffer.getvalue(), 'rotated.jpg')
    assert encoded.size == (320, 240) and encoded.decode().shape == (240, 320, 3)


def test_bytes_after_the_end_are_no_fault():
    whole = encode(street(4, 320, 240))
    trailing = EncodedImage(whole.data + b'maker notes' * 50, 'x.jpg')
    np.testing.assert_array_equal(trailing.decode(), whole.decode())


# ---- views --------------------------------------------------------------------------------------


def test_defaults_are_the_supplements():
    two, multi = TwoViews(), MultiCropViews()
    assert two.sizes == [224, 224] and two.scales == [(0.25, 1.0)] * 2
    assert multi.sizes == [224] * 2 + [96] * 10
    assert multi.scales == [(0.25, 1.0)] * 2 + [(0.05, 0.25)] * 10
    assert [p.blur_prob for p in multi.photometric] == [1.0, 0.1] + [0.5] * 10
    assert [p.solarize_prob for p in multi.photometric] == [0.0, 0.2] + [0.0] * 10
    for p in (*two.photometric, *multi.photometric):
        numbers = (p.jitter_prob, p.brightness, p.contrast, p.saturation, p.hue, p.grey_prob)
        assert numbers == (0.8, 0.4, 0.4, 0.2, 0.1, 0.2)
        assert p.blur_sigma == (0.1, 2.0) and p.solarize_threshold == 128
    assert two.flip_prob == 0.5 and two.ratio == (3 / 4, 4 / 3)


def coordinates_image(width: int, height: int) -> EncodedImage:
    """A lossless image whose red is x / 4 and green y / 4."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([np.zeros_like(x), y // 4, x // 4], axis=-1).astype(np.uint8)  # BGR
    return EncodedImage(cv2.imencode('.png', image)[1].tobytes(), 'coordinates.png')


def test_token_positions_are_where_the_pixels_come_from():
    """The picture carries its own coordinates through crop, resize and flip."""
    views = MultiCropViews(
        num_local=1, jitter_prob=0, grey_prob=0, blur_prob=(0, 0), solarize_prob=(0, 0)
    )
    flips = set()
    for _ in range(6):
        results = TokenGeometry()(views({'img': coordinates_image(1000, 800)}))
        flips.update(results['view_flips'].tolist())
        assert results['token_xy'].shape == (2, 196, 2)
        for view, xy in zip(results['img'], results['token_xy'], strict=False):
            patches = view.reshape(14, 16, 14, 16, 3).mean(axis=(1, 3)).reshape(196, 3)
            # floor(x / 4) of pixel x, whose centre is x + 0.5: x = 4 * value + 1.5 + 0.5
            np.testing.assert_allclose(xy, 4 * patches[:, :2] + 2, atol=2.0)
    assert flips == {False, True}


def test_depth_lands_on_the_token_that_shows_it():
    views = TwoViews()
    results = views({'img': coordinates_image(1000, 800)})
    centre = (results['view_boxes'][0, :2] + results['view_boxes'][0, 2:]) / 2 + 1
    results['lidar_uvd'] = np.array([[*centre, 20.0], [*centre, 40.0]], np.float32)
    results = TokenGeometry(patch_size=14)(results)
    token = results['token_has_depth'][0].argmax()
    assert results['token_has_depth'][0].sum() == 1 and results['token_depth'][0, token] == 30.0
    distance = np.abs(results['token_xy'][0] - centre).sum(1)
    assert token == distance.argmin()
    logarithm = TokenGeometry(patch_size=14, depth='log')(results)['token_depth'][0, token]
    np.testing.assert_allclose(logarithm, np.log([20, 40]).mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'scale': (0.5, 0.2)}, 'scale'),
        ({'local_scale': (0, 0.2)}, 'local_scale'),
        ({'max_reduction': 3}, 'max_reduction'),
        ({'blur_prob': (1.0,)}, 'blur_prob'),
        ({'ratio': (0, 1)}, 'ratio'),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiCropViews(**arguments)


def test_tokens_must_tile_the_view(photo):
    with pytest.raises(ValueError, match='patches of 15 px do not tile a view of 224 px'):
        TokenGeometry(patch_size=15)(TwoViews()({'img': photo}))
    with pytest.raises(ValueError, match="'mean' or 'log', got 'median'"):
        TokenGeometry(depth='median')


# ---- seeding ------------------------------------------------------------------------------------


def draws() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_key_decides_all_three_generators():
    seed = SeedFromIndex()
    first = seed({'sample_idx': KeyedIndex(5, seed=1, epoch=2)})['sample_seed'], draws()
    draws()
    assert first == (seed({'sample_idx': KeyedIndex(5, seed=1, epoch=2)})['sample_seed'], draws())
    assert first[0].dtype == np.int64 and first[0] >= 0
    others = [KeyedIndex(6, seed=1, epoch=2), KeyedIndex(5, seed=1, epoch=3), KeyedIndex(5, 2, 2)]
    for other in others:
        assert seed({'sample_idx': other})['sample_seed'] != first[0]
        assert all(a != b for a, b in zip(draws(), first[1], strict=True))


def test_plain_index_leaves_the_state_alone():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    first = SeedFromIndex()({'sample_idx': 5})['sample_seed']
    assert draws() == expected
    assert SeedFromIndex()({'sample_idx': 5})['sample_seed'] != first  # follows the state


def test_registered_for_every_library():
    assert ROOT_TRANSFORMS.get('SeedFromIndex') is SeedFromIndex
    assert TRANSFORMS.build({'type': 'SeedFromIndex'}).__class__ is SeedFromIndex
    for name in ('LoadImage', 'LoadLidar', 'TwoViews', 'TokenGeometry', 'PackViews'):
        assert TRANSFORMS.get(name) is not None


# ---- a host's loader ----------------------------------------------------------------------------


class Store(BaseStorageBackend):
    """Files by name in memory, as an object store keeps them."""

    files: dict[str, bytes] = {}

    def get(self, filepath: str) -> bytes:
        return self.files[filepath]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        return self.get(filepath).decode(encoding)


register_backend('test_store', Store)


def run(pipeline: list[dict], item: dict) -> dict:
    np.random.seed(4)
    return Compose([TRANSFORMS.build(step) for step in pipeline])(dict(item))


@pytest.mark.parametrize('views', ['TwoViews', 'MultiCropViews'])
@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_a_hosts_loader_and_backend_give_our_loaders_views(tmp_path, suffix, views, photo):
    picture = photo.decode(2)
    path = tmp_path / f'frame{suffix}'
    cv2.imwrite(str(path), picture[..., ::-1])
    Store.files = {'store://frame': path.read_bytes()}
    item = dict(img_path=str(path), ori_size=picture.shape[1::-1], cam2img=np.eye(3))
    size = dict(size=96) | (dict(num_local=2, local_size=48) if views == 'MultiCropViews' else {})
    rest = [
        dict(type=views, max_reduction=1, **size),
        dict(type='TokenGeometry', patch_size=16),
        dict(type='PackViews'),
    ]
    ours = run([dict(type='LoadImage'), *rest], item)
    host = run([dict(type='LoadImageFromFile'), *rest], item)
    backend = dict(type='LoadWholeImage', backend_args=dict(backend='test_store'))
    stored = run([backend, *rest], item | dict(img_path='store://frame'))
    Store.files['store://torn'] = path.read_bytes()[:-100]
    with pytest.raises(DataError, match='store://torn: '):
        run([backend, *rest], item | dict(img_path='store://torn'))
    for other in (host, stored):
        assert all(torch.equal(a, b) for a, b in zip(ours['inputs'], other['inputs'], strict=True))
        assert torch.equal(
            ours['data_samples'].get('token_xy'), other['data_samples'].get('token_xy')
        )


def test_bytes_and_pixels_of_the_same_image_are_the_same_image(photo):
    assert np.array_equal(image_of(dict(img=photo.data)).decode(), photo.decode())
    pixels = photo.decode()[..., ::-1]
    assert np.array_equal(image_of(dict(img=pixels)).decode(), photo.decode())


@pytest.mark.parametrize(
    ('item', 'message'),
    [
        (dict(img=np.zeros((9, 9, 3), np.float32)), 'float32 of shape'),
        (dict(img=np.zeros((9, 9), np.uint8)), 'LoadImageFromFile'),
        (dict(img=np.zeros((9, 9, 3), np.uint8), ori_size=(9, 8)), 'calibration would not fit'),
    ],
)
def test_what_a_hosts_loader_must_not_give(item, message):
    with pytest.raises(DataError, match=message):
        image_of(dict(item, img_path='a.png'))


def test_depth_needs_the_size_of_a_hosts_image_too(tmp_path):
    np.save(tmp_path / 'depth.npy', np.full((6, 8), 5.0, np.float32))
    item = dict(img=np.zeros((60, 80, 3), np.uint8), depth_map=str(tmp_path / 'depth.npy'))
    found = TRANSFORMS.build(dict(type='LoadDepthMap')).transform(item)['lidar_uvd']
    assert found[:, 0].max() == 75 and found[:, 1].max() == 55
