"""What cannot be evaluated at the end is said at the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3pt_mm.common.errors import ConfigError, DataError
from s3pt_mm.data.datasets.info_file import load_info_file, write_info_file
from s3pt_mm.detection import SurroundNuScenesDataset
from s3pt_mm.detection.metrics.split_check import check_split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Tables with two samples of mini_val and one of mini_train."""
    folder = tmp_path / 'v1.0-mini'
    folder.mkdir()
    scenes = [dict(token='v', name='scene-0103'), dict(token='t', name='scene-0061')]
    samples = [dict(token=name, scene_token=name[0]) for name in ('v1', 'v2', 't1')]
    (folder / 'scene.json').write_text(json.dumps(scenes))
    (folder / 'sample.json').write_text(json.dumps(samples))
    return tmp_path


def check(root: Path, *tokens: str, version: str = 'v1.0-mini', split: str | None = None) -> None:
    check_split(
        set(tokens), root=root, version=version, split=split, ann_file='i.pkl', key='val_evaluator'
    )


def test_a_whole_split_passes(root: Path) -> None:
    check(root, 'v1', 'v2')
    check(root, 't1', split='mini_train')


def test_a_part_of_a_split_and_more_than_a_split(root: Path) -> None:
    with pytest.raises(ConfigError, match=r'i.pkl has 1 of the 2 samples of mini_val and 0 others'):
        check(root, 'v1')
    with pytest.raises(ConfigError, match='2 of the 2 .* and 1 others.*NuScenesSubsetMetric'):
        check(root, 'v1', 'v2', 't1')


def test_infos_of_the_test_set(root: Path) -> None:
    with pytest.raises(ConfigError, match='v1.0-test, which has no ground truth.*format_only=True'):
        check(root, 'v1', version='v1.0-test')


def test_tables_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='scene.json.*set data_root'):
        check(tmp_path, 'v1')


@pytest.fixture
def infos(info_dir: Path, tmp_path: Path):
    """Writes the made info file again, its first sample changed; gives a data set of it."""
    content = load_info_file(info_dir / 'nuscenes_infos_val.parquet')

    def dataset(change, **options) -> SurroundNuScenesDataset:
        change(content['data_list'][0])
        write_info_file(tmp_path / 'infos.pkl', content['metainfo'], content['data_list'])
        return SurroundNuScenesDataset(
            data_root=str(tmp_path),
            ann_file='infos.pkl',
            data_prefix=dict(pts='', sweeps=''),
            pipeline=[],
            **options,
        )

    return dataset


def test_infos_without_instances_train_nothing_and_test_well(infos) -> None:
    with pytest.raises(DataError, match='has no `instances`.*labelled split'):
        infos(lambda info: info.pop('instances'))
    assert len(infos(lambda info: info.pop('instances', None), test_mode=True))


def test_instances_without_velocity(infos) -> None:
    with pytest.raises(DataError, match='instances have no `velocity`'):
        infos(lambda info: [instance.pop('velocity') for instance in info['instances']])
