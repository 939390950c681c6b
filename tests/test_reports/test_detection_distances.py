"""The distance figure: numbers by hand, the real frame against the devkit, files that exist."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from s3pt_mm.reports.detection_distances import draw_distances, write_distances
from s3pt_mm.reports.distances import GroupDistances, distance_summary, object_distances


def _info(*objects: tuple[int, float, float], lidar2ego: np.ndarray | None = None) -> dict:
    return {
        'lidar_points': {'lidar2ego': np.eye(4) if lidar2ego is None else lidar2ego},
        'instances': [
            {'bbox_label_3d': label, 'bbox_3d': [x, y, 9.0, 4, 2, 1.5, 0], 'bbox_3d_isvalid': x > 0}
            for label, x, y in objects
        ],
    }


def test_distances_are_horizontal_grouped_and_capped() -> None:
    infos = [_info((0, 3, 4), (1, 60, 80), (7, 6, 8), (-1, 1, 1), (8, 1, 1)), _info((5, -30, 40))]
    found = object_distances(infos)
    assert {group: values.within.tolist() for group, values in found.items()} == {
        'vehicle': [5.0], 'pedestrian': [10.0], 'cyclist': [50.0],
    }  # fmt: skip
    assert found['vehicle'].beyond == 1
    assert object_distances(infos, cap=100.0)['vehicle'].within.tolist() == [5.0, 100.0]
    assert len(object_distances(infos, valid_only=True)['cyclist'].within) == 0


def test_distance_is_from_the_ego_not_the_lidar() -> None:
    lidar2ego = np.array([[0.0, 1, 0, 1], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])
    found = object_distances([_info((0, 0, 10), lidar2ego=lidar2ego)])
    assert found['vehicle'].within.tolist() == [11.0]


def test_labels_follow_the_files_categories() -> None:
    names = ('barrier', 'car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle',
             'motorcycle', 'pedestrian', 'traffic_cone')  # fmt: skip
    categories = {name: label for label, name in enumerate(names)}
    found = object_distances([_info((0, 3, 4), (1, 6, 8))], categories=categories)
    assert found['vehicle'].within.tolist() == [10.0]
    with pytest.raises(ValueError, match="'car'"):
        object_distances([], categories={'truck': 0})
    with pytest.raises(ValueError, match='positive'):
        object_distances([], cap=0)


def test_summary_by_hand() -> None:
    groups = {
        'vehicle': GroupDistances(np.array([10.0, 20.0, 25.0, 50.0]), beyond=1),
        'cyclist': GroupDistances(np.array([]), beyond=0),
    }
    first, second = distance_summary(groups)
    assert first['objects'] == 5
    assert first['median'] == 22.5
    assert (first['within 20 m'], first['within 30 m'], first['within 60 m']) == (0.4, 0.6, 0.8)
    assert second == {'group': 'cyclist', 'objects': 0, 'beyond cap': 0}


def test_a_frame_agrees_with_the_devkit(one_frame: Path, tmp_path: Path) -> None:
    from nuscenes import NuScenes
    from nuscenes.eval.detection.utils import category_to_detection_name

    from s3pt_mm.data.datasets.info_file import load_info_file
    from s3pt_mm.data.datasets.nuscenes_infos import create_infos
    from s3pt_mm.reports.distances import GROUPS

    create_infos(root=one_frame, version='v1.0-mini', out_dir=tmp_path, workers=1)
    content = load_info_file(tmp_path / 'nuscenes_infos_train.parquet')
    found = object_distances(
        content['data_list'], categories=content['metainfo']['categories'], cap=1000.0
    )
    nusc = NuScenes('v1.0-mini', str(one_frame), verbose=False)
    lidar = nusc.get('sample_data', nusc.sample[0]['data']['LIDAR_TOP'])
    ego = nusc.get('ego_pose', lidar['ego_pose_token'])['translation']
    expected = {group: [] for group in GROUPS}
    for row in nusc.sample_annotation:
        name = category_to_detection_name(row['category_name'])
        for group, names in GROUPS.items():
            if name in names:
                expected[group].append(np.hypot(*np.subtract(row['translation'], ego)[:2]))
    assert sum(map(len, expected.values())) > 30
    for group, values in expected.items():
        # The vehicle leans a little, so that height leaks into the horizontal distance.
        assert np.allclose(np.sort(values), found[group].within, atol=0.3)


def test_figure_and_numbers_are_written(tmp_path: Path) -> None:
    generator = np.random.RandomState(0)
    groups = {
        name: GroupDistances(np.sort(generator.uniform(0, 65, 200)), beyond=7)
        for name in ('vehicle', 'pedestrian', 'cyclist')
    }
    paths = write_distances(groups, tmp_path / 'new' / 'fig2', source='fake')
    assert [path.name for path in paths] == [
        'fig2.pdf', 'fig2.png', 'fig2.md', 'fig2.csv', 'fig2.tex',
    ]  # fmt: skip
    assert paths[0].read_bytes().startswith(b'%PDF')
    assert cv2.imread(str(paths[1])).std() > 5
    rows = list(csv.DictReader(paths[3].open()))
    assert [row['objects'] for row in rows] == ['207'] * 3


def test_histogram_is_a_share_of_all_objects_per_metre() -> None:
    groups = {'vehicle': GroupDistances(np.array([1.0, 1.5, 64.9]), beyond=1)}
    axes = draw_distances(groups).axes[0]
    values, edges, _ = axes.patches[0].get_data()
    assert edges[0] == 0
    assert edges[-1] == 65
    assert values[0] == pytest.approx(100 * 2 / 4 / 2.5)
    assert (values * np.diff(edges)).sum() == pytest.approx(75.0)
    with pytest.raises(ValueError, match='nothing to draw'):
        draw_distances({'vehicle': GroupDistances(np.array([]), beyond=3)})
