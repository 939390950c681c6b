"""Panels: boxes over the pixels they belong to, truth and prediction, through hook and Runner."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import HOOKS, VISUALIZERS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from s3pt_mm.detection.data.loading import LoadSurroundImages
from s3pt_mm.detection.pictures.panel import (
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    DrawnBoxes,
    draw_bev,
    draw_boxes,
    draw_panel,
)
from s3pt_mm.detection.pictures.visualization import SurroundVisualizationHook, SurroundVisualizer

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK')


def _boxes(rows: list[list[float]]) -> LiDARInstance3DBoxes:
    return LiDARInstance3DBoxes(torch.tensor(rows), box_dim=9, origin=(0.5, 0.5, 0.5))


def _car(x: float, y: float, yaw: float = 0.0) -> list[float]:
    return [x, y, -0.5, 4.5, 1.9, 1.6, yaw, 0.0, 0.0]


def _layer(boxes: LiDARInstance3DBoxes, colour: tuple) -> DrawnBoxes:
    return DrawnBoxes(boxes.corners.double().numpy(), [''] * len(boxes), colour)


def _drawn(image: np.ndarray, colour: tuple) -> np.ndarray:
    """(N, 2) columns and rows of the pixels of this hue; smoothed lines are paler than it."""
    red, green, blue = np.moveaxis(image.astype(int), -1, 0)
    greenish, orange = green - red > 40, red - blue > 60
    return np.argwhere(greenish if colour == TRUTH_COLOUR else orange)[:, ::-1]


@pytest.fixture
def sample(surround_results: dict) -> Det3DDataSample:
    """One box ahead and one behind as truth; a prediction beside the first, a weak one far off."""
    for info in surround_results['images'].values():
        cv2.imwrite(info['img_path'], np.zeros((90, 160, 3), np.uint8))
    loaded = LoadSurroundImages(cameras=CAMERAS)(surround_results)
    sample = Det3DDataSample()
    sample.set_metainfo(
        {
            'ori_lidar2img': loaded['ori_lidar2img'],
            'camera_names': CAMERAS,
            'lidar2ego': np.eye(4),
            'img_path': [info['img_path'] for info in loaded['images'].values()],
            'token': 'abc',
            'sample_idx': 4,
        }
    )
    sample.eval_ann_info = {
        'gt_bboxes_3d': _boxes([_car(12, 1), _car(-15, -2), _car(8, 8)]),
        'gt_labels_3d': np.array([0, 2, -1]),
    }
    sample.pred_instances_3d = InstanceData(
        bboxes_3d=_boxes([_car(13, -2), _car(30, 0)]),
        scores_3d=torch.tensor([0.8, 0.1]),
        labels_3d=torch.tensor([0, 1]),
    )
    return sample


def test_wire_frame_covers_the_projected_corners(surround_results: dict) -> None:
    matrix = LoadSurroundImages(cameras=CAMERAS)(surround_results)['lidar2img'][0]
    image = np.zeros((90, 160, 3), np.uint8)
    boxes = _boxes([_car(12, 1, 0.4)])
    draw_boxes(image, matrix, _layer(boxes, TRUTH_COLOUR))
    corners = boxes.corners[0].double().numpy()
    homogeneous = np.c_[corners, np.ones(8)] @ matrix.T
    pixels = homogeneous[:, :2] / homogeneous[:, 2:3]
    touched = np.argwhere(image.any(-1))[:, ::-1]
    assert np.allclose(touched.min(0), pixels.min(0), atol=1.5)
    assert np.allclose(touched.max(0), pixels.max(0), atol=1.5)


def test_boxes_behind_or_around_the_camera_do_not_wrap(surround_results: dict) -> None:
    matrix = LoadSurroundImages(cameras=CAMERAS)(surround_results)['lidar2img'][0]
    image = np.zeros((90, 160, 3), np.uint8)
    draw_boxes(image, matrix, _layer(_boxes([_car(-12, 1)]), TRUTH_COLOUR))
    assert not image.any()
    # A box to the left that begins before the camera and ends behind it: only the left half.
    draw_boxes(image, matrix, _layer(_boxes([_car(1.5, 2.2)]), TRUTH_COLOUR))
    touched = np.argwhere(image.any(-1))[:, ::-1]
    assert len(touched)
    assert touched[:, 0].max() < 82


def test_birds_eye_view_has_front_on_top_and_left_on_the_left() -> None:
    layers = [_layer(_boxes([_car(30, 20)]), TRUTH_COLOUR)]
    view = draw_bev(layers, lidar2ego=np.eye(4), side=400, max_range=50)
    drawn = _drawn(view[60:], TRUTH_COLOUR) + (0, 60)  # below the legend
    assert np.allclose(drawn.mean(0), (200 - 20 * 4, 200 - 30 * 4), atol=4)
    # nuScenes' LiDAR: its y axis is the vehicle's front.
    turned = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    layers = [_layer(_boxes([_car(-20, 30)]), TRUTH_COLOUR)]
    view = draw_bev(layers, lidar2ego=turned, side=400, max_range=50)
    drawn = _drawn(view[60:], TRUTH_COLOUR) + (0, 60)
    assert np.allclose(drawn.mean(0), (200 - 20 * 4, 200 - 30 * 4), atol=4)


def test_panel_puts_cameras_in_their_places() -> None:
    images = [np.full((9, 16, 3), 10 * (view + 1), np.uint8) for view in range(6)]
    names = ['CAM_BACK', 'CAM_FRONT', 'CAM_BACK_LEFT', 'CAM_FRONT_RIGHT', 'CAM_BACK_RIGHT',
             'CAM_FRONT_LEFT']  # fmt: skip
    panel = draw_panel(
        images, np.tile(np.eye(4), (6, 1, 1)), [], cameras=names, lidar2ego=np.eye(4),
        tile_width=160,
    )  # fmt: skip
    tiles = [(row, column) for row in range(2) for column in range(3)]
    centres = [panel[34 + 90 * row + 60, 160 * column + 80, 0] for row, column in tiles]
    assert centres == [60, 20, 40, 30, 10, 50]


def test_visualizer_draws_truth_and_confident_predictions(
    sample: Det3DDataSample, tmp_path: Path
) -> None:
    visualizer = VISUALIZERS.build({'type': 'SurroundVisualizer', 'name': 'one', 'tile_width': 320})
    assert isinstance(visualizer, SurroundVisualizer)
    visualizer.dataset_meta = {'classes': ('car', 'truck', 'trailer')}
    images = [cv2.imread(path) for path in sample.img_path]
    path = tmp_path / 'new' / 'panel.png'
    panel = visualizer.add_datasample('abc', {'img': images}, sample, out_file=str(path))
    written = cv2.imread(str(path))[..., ::-1]
    assert np.array_equal(written, panel)
    front = panel[34:214, 320:640]
    # True car left of the middle, predicted one right of it.
    true, predicted = (_drawn(front, c)[:, 0].mean() for c in (TRUTH_COLOUR, PREDICTION_COLOUR))
    assert true < 163 < predicted
    behind = panel[214:, 320:640]
    assert len(_drawn(behind, TRUTH_COLOUR))
    assert not len(_drawn(behind, PREDICTION_COLOUR))
    plain = visualizer.add_datasample(
        'abc', {'img': images}, sample, draw_gt=False, pred_score_thr=0.9, out_file=str(path)
    )
    assert not len(_drawn(plain[:, :960], TRUTH_COLOUR))
    assert not len(_drawn(plain[:, :960], PREDICTION_COLOUR))
    weak = visualizer.add_datasample(
        'abc', {'img': images}, sample, pred_score_thr=0.05, out_file=str(path)
    )
    assert len(_drawn(weak, PREDICTION_COLOUR)) > len(_drawn(panel, PREDICTION_COLOUR))


def test_visualizer_says_what_it_lacks(sample: Det3DDataSample) -> None:
    bare = Det3DDataSample(metainfo={'img_path': sample.img_path})
    visualizer = SurroundVisualizer('two')
    with pytest.raises(KeyError, match='LoadSurroundImages'):
        visualizer.add_datasample('x', {'img': []}, bare)


class _Run:
    """What the hook asks of a runner."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir, self.timestamp, self.iter = str(work_dir), 'now', 12


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SurroundVisualizationHook:
    visualizer = SurroundVisualizer(
        'hooked', vis_backends=[{'type': 'LocalVisBackend'}], save_dir=str(tmp_path)
    )
    visualizer.dataset_meta = {'classes': ('car', 'truck', 'trailer')}
    monkeypatch.setattr(
        'mmengine.visualization.Visualizer.get_current_instance', lambda *_, **__: visualizer
    )
    hook = HOOKS.build({'type': 'SurroundVisualizationHook', 'draw': True, 'interval': 2})
    assert isinstance(hook, SurroundVisualizationHook)
    return hook


def test_hook_draws_every_tested_sample_into_one_folder(
    hook: SurroundVisualizationHook, sample: Det3DDataSample, tmp_path: Path
) -> None:
    hook.test_out_dir = 'pictures'
    second = sample.clone()
    second.set_metainfo({'token': 'def', 'sample_idx': 5})
    for batch, outputs in enumerate(([sample], [second])):
        hook.after_test_iter(_Run(tmp_path), batch, {}, outputs)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('00*.png'))
    assert written == [Path('now/pictures/000004_abc.png'), Path('now/pictures/000005_def.png')]


def test_hook_draws_every_second_validation_batch_for_the_backends(
    hook: SurroundVisualizationHook, sample: Det3DDataSample, tmp_path: Path
) -> None:
    for batch in range(3):
        hook.after_val_iter(_Run(tmp_path), batch, {}, [sample])
    pictures = list(tmp_path.rglob('val_000004_abc_12.png'))
    assert len(pictures) == 1
    hook.draw = False
    pictures[0].unlink()
    hook.after_val_iter(_Run(tmp_path), 0, {}, [sample])
    hook.after_test_iter(_Run(tmp_path), 0, {}, [sample])
    assert not list(tmp_path.rglob('*abc*'))
