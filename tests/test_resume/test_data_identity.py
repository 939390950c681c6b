"""Ranks must hold the same list and config, and say so before the first batch if they do not."""

from types import SimpleNamespace

import pytest
from mmengine import dist
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from PIL import Image

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.data.datasets.image_folder import ImageFolderDataset
from s3pt_mm.resume.data_identity import fingerprint, require_same_data
from s3pt_mm.resume.recipe import require_same_settings


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


def runner(**changes):
    settings = {'optim_wrapper.optimizer.lr': 0.1, 'train_dataloader.num_workers': 4, **changes}
    cfg = Config(dict(train_cfg=dict(max_epochs=3)))
    cfg.merge_from_dict(settings)
    return SimpleNamespace(cfg=cfg)


def gather(monkeypatch, *runners):
    """What the last rank finds."""
    gathered = []
    monkeypatch.setattr(dist, 'get_world_size', lambda: len(runners))
    for one in runners:
        monkeypatch.setattr(dist, 'all_gather_object', lambda own: gathered.append(own) or [own])
        require_same_settings(one)
    monkeypatch.setattr(dist, 'all_gather_object', lambda own: gathered)
    require_same_settings(runners[-1])


def test_ranks_with_other_settings_stop_with_the_values(monkeypatch):
    """One of them would wait for the other at the end, or the rates differ in silence."""
    words = 'optim_wrapper.optimizer.lr is rank 0: 0.1, rank 1: 0.2'
    with pytest.raises(ConfigError, match=words):
        gather(monkeypatch, runner(), runner(**{'optim_wrapper.optimizer.lr': 0.2}))
    with pytest.raises(ConfigError, match="optim_wrapper.type is rank 0: 'absent', rank 1: 'X'"):
        gather(monkeypatch, runner(), runner(**{'optim_wrapper.type': 'X'}))


def test_hosts_may_have_other_places_and_workers(monkeypatch):
    here = {'train_dataloader.num_workers': 9, 'train_dataloader.dataset.data_root': '/b'}
    gather(monkeypatch, runner(**{'train_dataloader.dataset.data_root': '/a'}), runner(**here))
