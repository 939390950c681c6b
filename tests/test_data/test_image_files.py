"""Images as people have them: folders, links, lists, masks among photos, every kind of file."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from s3pt_mm.common.errors import DataError
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.data.image_files import find_images, looks_like_mask, mask_patterns
from s3pt_mm.data.transforms import image as image_module
from s3pt_mm.data.transforms.image import EncodedImage, LoadImage
from tests.nuscenes_tables import write_jpeg


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def photo(height: int = 60, width: int = 100) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def mask(height: int = 60, width: int = 100) -> np.ndarray:
    """Class ids in stripes."""
    return np.repeat(np.arange(height // 10, dtype=np.uint8), 10)[:, None].repeat(width, 1)


# ---- which files --------------------------------------------------------------------------------


def test_what_counts_and_what_is_left_out(tmp_path):
    touch(tmp_path, 'b/2.JPG', 'a/1.jfif', 'a/deep/3.AVIF', 'notes.txt', 'a/clip.mp4')
    touch(tmp_path, '.thumbnails/1.jpg', 'a/@eaDir/1.jpg', '.trash/x.txt', '._2.jpg')
    found = find_images(tmp_path)
    assert found.paths == ['a/1.jfif', 'a/deep/3.AVIF', 'b/2.JPG']
    assert 'left out: 3 hidden or in generated folders' in str(found)
    assert '2 of other endings' in str(found) and '.mp4' in str(found)
    assert len(find_images(tmp_path, hidden=True).paths) == 6


def test_what_is_no_file_is_left_out(tmp_path):
    """Reading a pipe waits for ever, a device never ends."""
    touch(tmp_path, '1.jpg')
    os.mkfifo(tmp_path / '2.jpg')
    (tmp_path / '3.jpg').symlink_to('/dev/zero')
    (tmp_path / '4.jpg').symlink_to('nowhere')  # said when it is read
    (tmp_path / '5.jpg').mkdir()
    found = find_images(tmp_path)
    assert found.paths == ['1.jpg', '4.jpg']
    assert 'left out: 2 pipes, sockets or devices' in str(found)


@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_a_list_may_name_what_is_no_file(tmp_path, kind):
    path = tmp_path / 'x.jpg'
    {'pipe': os.mkfifo, 'device': lambda p: p.symlink_to('/dev/zero'), 'folder': Path.mkdir}[kind](
        path
    )
    with pytest.raises(DataError, match=r'x\.jpg: cannot read the image \(a folder, pipe or dev'):
        LoadImage()(dict(img_path=str(path)))


def test_a_hidden_folder_that_was_asked_for(tmp_path):
    touch(tmp_path, '.cache/1.jpg')
    assert find_images(tmp_path / '.cache').paths == ['1.jpg']


def test_links_count_once_and_never_loop(tmp_path):
    touch(tmp_path, 'root/z/1.jpg', 'other/2.jpg')
    root = tmp_path / 'root'
    os.symlink(root, root / 'z/loop')
    os.symlink(root / 'z', root / 'a')  # its own name wins, whatever the disk lists first
    os.symlink(tmp_path / 'other', root / 'linked')
    os.symlink(tmp_path / 'other/2.jpg', root / 'file.jpg')
    os.symlink(tmp_path / 'nowhere.jpg', root / 'broken.jpg')
    assert find_images(root).paths == ['broken.jpg', 'file.jpg', 'linked/2.jpg', 'z/1.jpg']


def test_patterns(tmp_path):
    touch(tmp_path, 'train/1.png', 'train/1_L.png', 'trainannot/1.png', 'side/1.png')
    assert find_images(tmp_path, exclude=['*_L.png', '*annot/*']).paths == [
        'side/1.png',
        'train/1.png',
    ]
    found = find_images(tmp_path, include='train/*', exclude='*_X.png')
    assert found.paths == ['train/1.png', 'train/1_L.png']
    assert str(found) == '2 images; left out: 2 not in include; no file fits *_X.png'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    touch(tmp_path, 'closed/1.jpg')
    (tmp_path / 'closed').chmod(0)
    with pytest.raises(DataError, match=r'closed: Permission denied'):
        find_images(tmp_path)


def test_a_list_in_place_of_the_search(tmp_path):
    root = tmp_path / 'data'
    for name in ('b 1.jpg', 'c/2.jpg', '3.jpg'):
        write_jpeg(root / name, 0, width=64, height=48)
    listed = f'c/2.jpg\r\nb 1.jpg\n\n{root}/3.jpg\nc/2.jpg\n'
    (root / 'list.txt').write_bytes(b'\xef\xbb\xbf' + listed.encode())
    data = ImageFolderDataset(data_root=str(root), ann_file='list.txt', pipeline=[LoadImage()])
    assert [data[i]['token'] for i in range(4)] == [
        'c/2.jpg',
        'b 1.jpg',
        f'{root}/3.jpg',
        'c/2.jpg',
    ]
    part = ImageFolderDataset(data_root=str(root), ann_file='list.txt', exclude='c/*')
    assert len(part) == 2
    (root / 'list.txt').write_text('absent.jpg\n')
    gone = ImageFolderDataset(data_root=str(root), ann_file='list.txt', pipeline=[LoadImage()])
    with pytest.raises(DataError, match=r'absent\.jpg: cannot read'):
        gone[0]
    (root / 'list.txt').write_bytes(b'\0\1\2')
    with pytest.raises(DataError, match='is no text'):
        ImageFolderDataset(data_root=str(root), ann_file='list.txt')
    with pytest.raises(DataError, match=r'none\.txt'):
        ImageFolderDataset(data_root=str(root), ann_file='none.txt')


# ---- masks among photos -------------------------------------------------------------------------


def write_camvid(root: Path, images: int = 3) -> Path:
    """CamVid's folders as SegNet's tutorial has them."""
    for split in ('train', 'val'):
        (root / split).mkdir(parents=True)
        (root / f'{split}annot').mkdir()
        for index in range(images):
            name = f'0001TP_{index:06d}'
            Image.fromarray(photo()).save(root / split / f'{name}.png')
            Image.fromarray(mask()).save(root / f'{split}annot/{name}.png')
    return root


@pytest.fixture
def said(monkeypatch):
    """Lines that are logged, in a process whose logger others may have made."""
    lines: list[tuple[int, str]] = []

    def keep(text, logger=None, level=logging.INFO):
        lines.append((level, text))

    for module in ('transforms.image', 'datasets.image_folder'):
        monkeypatch.setattr(f's3pt_mm.data.{module}.print_log', keep)
    return lines


def test_masks_are_said_with_the_pattern_that_helps(tmp_path, said):
    root = write_camvid(tmp_path / 'camvid')
    assert len(ImageFolderDataset(data_root=str(root))) == 12
    ((level, line),) = said
    assert level == logging.WARNING and 'about 6 of 12 images look like label masks' in line
    assert "exclude=['trainannot/*', 'valannot/*']" in line
    said.clear()
    assert len(ImageFolderDataset(data_root=str(root), exclude=['trainannot/*', 'valannot/*'])) == 6
    assert [line for _, line in said] == [f'{root}: 6 images; left out: 6 by exclude']


def test_photos_are_no_masks(tmp_path, said):
    dark = (photo() // 16)[..., :1].repeat(3, 2) + np.random.default_rng(1).integers(
        0, 2, (60, 100, 1), dtype=np.uint8
    )
    for name, pixels in dict(day=photo(), night=dark, palette=photo()).items():
        image = Image.fromarray(pixels)
        (image.quantize(200) if name == 'palette' else image).save(tmp_path / f'{name}.png')
    Image.fromarray(mask()).save(tmp_path / 'flat.jpg')  # a JPEG holds no labels
    ImageFolderDataset(data_root=str(tmp_path))
    assert not said
    assert looks_like_mask(np.zeros((40, 40, 3), np.uint8))


def test_patterns_for_masks():
    photos = ['a/1.png', 'a/2.png', 'b/front/1.png']
    assert mask_patterns(['a/1_L.png', 'b/front/1_L.png'], photos) == ['*_L.png']
    assert mask_patterns(['b/labels/x/1.png', 'b/labels/y/1.png'], photos) == ['b/labels/*']
    assert mask_patterns(['b/labels/1_L.png', 'b/other/2.png'], ['a/3_L.png']) == ['b/*']
    assert mask_patterns(['a/9.png'], photos) == ['a/9.png']  # nothing shorter tells it apart


# ---- every kind of file -------------------------------------------------------------------------


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tif'])
def test_exif_rotation(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'x.{ending}'
    options = dict(webp=dict(lossless=True), jpg=dict(quality=95, subsampling=0)).get(ending, {})
    Image.fromarray(photo()).save(path, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    image = ImageFolderDataset(data_root=str(tmp_path), pipeline=[LoadImage()])[0]['img']
    assert image.size == expected.shape[1::-1]
    assert np.abs(image.decode().astype(int) - expected).max() <= 3  # two decoders of JPEG
    if ending == 'jpg':
        assert image.decode(2).shape == (expected.shape[0] // 2, expected.shape[1] // 2, 3)
    if ending != 'tif':  # with a calibration or a mask, pixels stay as they are stored
        stored = EncodedImage(path.read_bytes(), '')
        assert stored.size == (100, 60) and stored.decode().shape == (60, 100, 3)


@pytest.mark.parametrize(
    ('mode', 'ending'),
    [(m, e) for m in ('1', 'L', 'P', 'LA', 'RGBA') for e in ('png', 'tif')]
    + [('L', 'jpg'), ('CMYK', 'jpg'), ('CMYK', 'tif'), ('P', 'gif'), ('RGBA', 'webp')]
    + [('RGB', 'avif'), ('RGB', 'bmp'), ('L', 'pgm'), ('RGB', 'jp2')],
)
def test_colours_of_every_mode(tmp_path, mode, ending):
    path = tmp_path / f'x.{ending}'
    source = Image.fromarray(photo()).convert(mode)
    if 'A' in mode:
        source.putalpha(0)  # colours stay under full transparency
    source.save(path, **(dict(lossless=True, exact=True) if ending == 'webp' else {}))
    with Image.open(path) as file:
        expected = np.asarray(file.convert('RGB'))
    found = EncodedImage(path.read_bytes(), str(path)).decode()
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 3
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r'x\.'):
        EncodedImage(path.read_bytes(), str(path)).decode()


@pytest.mark.parametrize('ending', ['png', 'tif'])
@pytest.mark.parametrize('bits', [10, 12, 14, 16])
@pytest.mark.parametrize('grey', [True, False])
def test_16_bits_are_scaled_by_those_in_use(tmp_path, said, monkeypatch, ending, bits, grey):
    monkeypatch.setattr(image_module, '_said', set())
    pixels = photo().astype(np.uint16) << (bits - 8)
    pixels[0, 0] = 2**bits - 1
    path = tmp_path / f'x.{ending}'
    cv2.imwrite(str(path), pixels[..., 0] if grey else pixels[..., ::-1])
    found = EncodedImage(path.read_bytes(), str(path)).decode()
    assert np.array_equal(found, (pixels[..., :1].repeat(3, 2) if grey else pixels) >> (bits - 8))
    EncodedImage(path.read_bytes(), str(path)).decode()
    ((_, line),) = said  # once
    assert f'taken for {bits} bits' in line
    said.clear()
    stated = EncodedImage(path.read_bytes(), str(path), bits=16).decode()
    assert np.array_equal(stated, found >> (16 - bits)) and not said
    if bits > 10:
        with pytest.raises(DataError, match='beyond 9 bits'):
            EncodedImage(path.read_bytes(), str(path), bits=9).decode()


def test_the_true_reason(tmp_path, monkeypatch):
    path = tmp_path / 'depth.tif'
    cv2.imwrite(str(path), photo()[..., 0].astype(np.float32))
    with pytest.raises(DataError, match='its pixels are float32'):
        EncodedImage(path.read_bytes(), str(path)).decode()
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(DataError, match=r'exceeds limit.*Store it smaller'):
        EncodedImage(path.read_bytes(), str(path))
