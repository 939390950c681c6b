"""Command lines that cannot be right end in one line, names that are no text in a report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from s3pt_mm.cli import check_data, create_data, test
from s3pt_mm.common.errors import ConfigError
from s3pt_mm.hosts.checks import check_data as check_config_data


def test_a_random_split_in_percent(nuimages_root: Path, capsys) -> None:
    assert create_data.main(['nuimages', '--root', str(nuimages_root), '--random-split', '80']) == 1
    error = capsys.readouterr().err.strip()
    assert error == 'error: --random-split 80.0: give a share between 0 and 1, as 0.8'


def test_a_category_that_nuimages_has_not(nuimages_root: Path, capsys) -> None:
    path = nuimages_root / 'v1.0-train' / 'category.json'
    table = json.loads(path.read_text())
    table[0]['name'] = 'vehicle.hovercraft'
    path.write_text(json.dumps(table))
    assert create_data.main(['nuimages', '--root', str(nuimages_root)]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f'error: {path}') and 'vehicle.hovercraft' in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize('name', ['report.csv', 'report.json'])
def test_file_names_that_are_no_text(name: str, tmp_path: Path, capsys) -> None:
    folder = tmp_path / 'photos'
    folder.mkdir()
    Image.new('RGB', (8, 8)).save(folder / 'good.png')
    with open(os.fsencode(folder) + b'/caf\xe9.jpg', 'wb') as file:
        file.write(b'no image')
    out = tmp_path / name
    assert check_data.main(['--folder', str(folder), '--out', str(out), '--workers', '1']) == 1
    assert 'udce9' in out.read_text()
    assert '2 images' in capsys.readouterr().out


def test_a_folder_beside_nuscenes_in_one_data_set(tmp_path: Path) -> None:
    parts = [dict(type=kind) for kind in ('ImageFolderDataset', 'NuScenesImages')]
    joined = dict(type='ConcatDataset', datasets=parts)
    cfg = Config(dict(train_dataloader=dict(dataset=joined)))
    with pytest.raises(ConfigError, match='joins ImageFolderDataset and NuScenesImages.*info file'):
        check_config_data(cfg, 'train_dataloader', 'c.py')


def test_a_folder_of_predictions_with_petr(repository: Path) -> None:
    cfg = Config.fromfile(repository / 'configs/petr/vits16_nuscenes.py')
    args = test.parse_arguments(['c.py', 'x.pth', '--out', 'folder'])
    with pytest.raises(ConfigError, match='--out folder: only segmentation.*ending in .pkl'):
        test.merge_output(cfg, args)
