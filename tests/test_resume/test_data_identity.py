"""Ranks must hold the same list, and say so before the first batch if they do not."""

import pytest
from mmengine import dist
from mmengine.dataset import ConcatDataset, RepeatDataset
from PIL import Image

from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.resume.data_identity import fingerprint, require_same_data


def folder(path, names):
    path.mkdir()
    for name in names:
        Image.new('RGB', (8, 8)).save(path / name)
    return ImageFolderDataset(data_root=str(path))


def test_content_counts_and_the_place_does_not(tmp_path):
    one, other, moved = (
        folder(tmp_path / name, files)
        for name, files in (('a', ['x.png', 'y.png']), ('b', ['x.png', 'z.png']),
                            ('longer name', ['x.png', 'y.png']))
    )  # fmt: skip
    assert fingerprint(one) == fingerprint(moved) != fingerprint(other)
    assert fingerprint(RepeatDataset(one, 2)) != fingerprint(RepeatDataset(other, 2))
    assert fingerprint(ConcatDataset([one, other])) != fingerprint(ConcatDataset([one, one]))


@pytest.mark.parametrize('names', [['x.png'], ['x.png', 'z.png']])
def test_ranks_with_other_data_stop_with_both_figures(tmp_path, monkeypatch, names):
    here, there = folder(tmp_path / 'a', ['x.png', 'y.png']), folder(tmp_path / 'b', names)
    monkeypatch.setattr(dist, 'get_world_size', lambda: 2)
    monkeypatch.setattr(
        dist, 'all_gather_object', lambda mine: [mine, (len(there), fingerprint(there))]
    )
    words = rf'rank 0: 2 images \(list {fingerprint(here)}\), rank 1: {len(names)} images'
    with pytest.raises(ValueError, match=words):
        require_same_data(here)
    monkeypatch.setattr(dist, 'all_gather_object', lambda mine: [mine, mine])
    require_same_data(here)
