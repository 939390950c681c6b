"""Same seed, same bytes; all or nothing; errors that say what to do."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from nuimages import NuImages

from s3pt_mm.toydrive import ToyDriveConfig, generate, generation
from s3pt_mm.toydrive.write_cityscapes import train_ids

SMALL = ToyDriveConfig.tiny(
    outputs=('nuimages', 'cityscapes'), nuimages_train=2, nuimages_val=1, cityscapes_train=1,
    cityscapes_val=1, image_scale=0.1, density=0.3,
)  # fmt: skip


def _digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob('*') if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    one = _digests(generate(tmp_path / 'one', SMALL, progress=False))
    two = _digests(generate(tmp_path / 'two', replace(SMALL, workers=2), progress=False))
    assert one == two and len(one) > 10
    other = _digests(generate(tmp_path / 'other', replace(SMALL, seed=1), progress=False))
    photos = {h for name, h in one.items() if name.endswith(('.jpg', 'leftImg8bit.png'))}
    assert photos and not photos & set(other.values())


def test_complete_is_kept_and_other_config_refused(
    toydrive_all: Path, toydrive_config: ToyDriveConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, '_write', lambda *_: pytest.fail('made again'))
    before = (toydrive_all / 'toydrive.json').stat().st_mtime_ns
    assert generate(toydrive_all, toydrive_config, progress=False) == toydrive_all
    assert (toydrive_all / 'toydrive.json').stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match='seed: 0 there, 5 asked for.*--overwrite'):
        generate(toydrive_all, replace(toydrive_config, seed=5), progress=False)


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'mine.txt').write_text('x')
    with pytest.raises(FileExistsError, match='no ToyDrive'):
        generate(tmp_path, SMALL, overwrite=True, progress=False)
    assert (tmp_path / 'mine.txt').read_text() == 'x'


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generation.write_nuimages, 'capture', broken)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / 'data', SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'change', [{'weather': 'snow'}, {'scenes': 11}, {'image_scale': 0.0}, {'outputs': ('kitti',)}]
)
def test_bad_config_names_field_and_value(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        ToyDriveConfig(**change)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_nuimages_devkit_reads_masks(toydrive_all: Path, split: str) -> None:
    nuim = NuImages(f'v1.0-{split}', str(toydrive_all / 'nuimages'), lazy=False)
    assert len(nuim.category) == 25 and len(nuim.sample) >= 2
    road = 0.0
    for sample in nuim.sample:
        semantic, instance = nuim.get_segmentation(sample['key_camera_token'])
        assert semantic.shape == (900, 1600)
        anns = [a for a in nuim.object_ann if a['sample_data_token'] == sample['key_camera_token']]
        for number, ann in enumerate(sorted(anns, key=lambda a: a['token']), start=1):
            rows, columns = np.nonzero(instance == number)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box == ann['bbox']
        road += (semantic == 24).mean()
    assert road > 0.1


@pytest.mark.parametrize('split', ['train', 'val'])
def test_cityscapes_labels_agree_with_each_other_and_the_photo(
    toydrive_all: Path, split: str
) -> None:
    root = toydrive_all / 'cityscapes'
    photo = min((root / 'leftImg8bit' / split).glob('*/*_leftImg8bit.png'))
    stem = photo.name.replace('_leftImg8bit.png', '_gtFine_')
    truth = root / 'gtFine' / split / photo.parent.name
    labels = cv2.imread(str(truth / f'{stem}labelIds.png'), cv2.IMREAD_UNCHANGED)
    trained = cv2.imread(str(truth / f'{stem}labelTrainIds.png'), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE).astype(float)
    assert labels.shape == image.shape == (1024, 2048)
    np.testing.assert_array_equal(trained, train_ids()[labels])
    assert {7, 11, 23} <= set(np.unique(labels))
    # Label borders lie on image edges: the gradient there is larger than on the same borders
    # shifted by a few shading pixels.
    edge = np.abs(cv2.Sobel(image, cv2.CV_64F, 1, 0)) + np.abs(cv2.Sobel(image, cv2.CV_64F, 0, 1))
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    wide = cv2.dilate(border.astype(np.uint8), np.ones((5, 5))) > 0
    assert edge[wide].mean() > 1.15 * edge[np.roll(wide, 24, axis=1)].mean()
