"""The ladder's machinery: quick runs on made data, resumption, the page, the sources."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from tests.tool_runs import run_tool
from tools.dev.evidence import ladder
from tools.dev.evidence.data import camvid, pandaset
from tools.dev.evidence.page import spread, write_page
from tools.dev.evidence.run import final_losses, share_settings
from tools.dev.evidence.supervised import train_supervised

NAMES = ['sky', 'road', 'car']


def made_camvid(root: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (('train', 16), ('val', 2)):
        for number in range(count):
            mask = np.zeros((180, 240), np.uint8)
            mask[100:] = 1
            x, y = generator.integers(0, 140, 2)
            mask[y : y + 40, x : x + 60] = 2
            pixels = np.array([[120, 160, 220], [90, 90, 90], [200, 40, 40]], np.uint8)[mask]
            for folder, image in (('images', pixels), ('masks', mask)):
                path = root / folder / split / f'{number:02d}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    (root / 'classes.json').write_text(json.dumps(NAMES))
    return root


def made_pandaset(root: Path) -> Path:
    """A LiDAR at the world's origin looks along x at a wall 10 m ahead of the one camera."""
    instants = [f'{n:02d}' for n in range(0, 16, 2)]
    # Camera axes in the LiDAR's frame (x ahead, y left, z up): z ahead, x right, y down.
    pose = [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]
    same = np.eye(4).tolist()
    calibration = dict(
        image_size=[96, 54],
        cameras=dict(front=dict(fx=50.0, fy=50.0, cx=48.0, cy=27.0)),
        lidar_to_world={instant: same for instant in instants},
        camera_to_world=dict(front={instant: pose for instant in instants}),
    )
    points = np.float32([[10, 0, 0, 1], [20, 0, 0, 1], [10, 2, 1, 1], [-5, 0, 0, 1]])
    for instant in instants:
        for name, content in (
            ('lidar', points.tobytes()),
            ('semseg', np.uint8([13, 41, 7, 30]).tobytes()),
        ):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f'{instant}.bin').write_bytes(content)
        (root / 'images/front').mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((54, 96, 3), np.uint8)).save(root / f'images/front/{instant}.jpg')
    (root / 'calibration.json').write_text(json.dumps(calibration))
    (root / 'classes.json').write_text(json.dumps({str(n): f'class {n}' for n in range(1, 43)}))
    return root


def evidence(repository: Path, root: Path, out: Path, *options: str) -> str:
    command = ('--camvid', root, '--out', out, '--quick', '--recipe', 'as published', *options)
    return run_tool(repository, 'tools/dev/make_evidence.py', *command)


@pytest.mark.slow
def test_quick_runs_are_kept_and_make_a_page(repository: Path, tmp_path: Path) -> None:
    root, out = made_camvid(tmp_path / 'camvid'), tmp_path / 'out'
    rungs = ('--rungs', 'DINO', ladder.HEADS_ONLY, ladder.SUPERVISED)
    log = evidence(repository, root, out, *rungs)
    assert 'camvid 1/3: DINO, seed 0' in log
    found = {json.loads(p.read_text())['rung'] for p in out.glob('*/*/*/*/figures.json')}
    assert found == {'DINO', ladder.HEADS_ONLY, ladder.SUPERVISED}
    page = (out / 'page.md').read_text()
    for text in ('| CrIBo, heads only |', '| control: colour + place |', 'Published', '| car |'):
        assert text in page
    before = {p: p.stat().st_mtime_ns for p in out.rglob('figures.json')}
    assert 'seed 0' not in evidence(repository, root, out, *rungs)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob('figures.json')}


def test_runs_of_another_size_do_not_share_a_table(tmp_path: Path) -> None:
    settings = tmp_path / 'settings.json'
    for _ in range(2):
        share_settings(settings, dict(images=64, crops=4, sources=['a']))
    share_settings(settings, dict(images=64, crops=4, sources=['a', 'b']))
    with pytest.raises(SystemExit, match='images 64, not 32; choose another --out'):
        share_settings(settings, dict(images=32, crops=4, sources=['a']))


def test_pandaset_masks_have_the_nearest_points_class(tmp_path: Path) -> None:
    source = pandaset(made_pandaset(tmp_path / 'drive'), tmp_path / 'cache')
    assert len(source.train) == 5 and len(source.val) == 2 and source.has_depth
    label_map = source.val[0].label_map
    names = source.val.class_set.classes
    seen = {tuple(at): names[label_map[tuple(at)]] for at in np.argwhere(label_map != 255)}
    # Straight ahead the car hides the building; 2 m to the left and 1 m up lies road.
    assert seen == {(27, 48): 'car', (22, 38): 'road'}


def test_every_rung_changes_one_thing_and_trains_what_it_says(tmp_path: Path) -> None:
    free = camvid(made_camvid(tmp_path / 'a'), tmp_path)
    depth = pandaset(made_pandaset(tmp_path / 'b'), tmp_path)
    assert '+ depth (S3PT)' in ladder.rungs_of(depth)
    assert '+ depth (S3PT)' not in ladder.rungs_of(free)
    recipe = ladder.RECIPES['patch filters held, position x 10']
    configs = {
        rung: ladder.make_config(free, rung, seed=7, images=480, recipe=recipe)
        for rung in ladder.RUNGS
    }
    for rung, cfg in configs.items():
        assert cfg.randomness.seed == cfg.train_dataloader.sampler.seed == 7
        assert cfg.epochs == cfg.train_cfg.max_epochs == 30 and cfg.model.freeze_patch_embed
        assert cfg.param_scheduler[-1].end == 30, rung
        assert cfg.default_hooks.last_layer_freeze.epochs == 6
        assert 'knn_probe' not in cfg.default_hooks
    models = {rung: cfg.model.to_dict() for rung, cfg in configs.items()}
    assert models['DINO'] == models['DINO, equal compute']
    assert models['CrIBo']['head']['prototype_kind'] == 'plain'
    assert models[ladder.HEADS_ONLY] == models['CrIBo']
    assert configs[ladder.HEADS_ONLY].optim_wrapper.paramwise_cfg.custom_keys == {
        'backbone': dict(lr_mult=0.0)
    }
    assert models['+ vMF'] == {
        **models['CrIBo'],
        'center_space': 'probability',
        'head': {**models['CrIBo']['head'], 'prototype_kind': 'vmf'},
    }
    clustering = models['+ diversity']['clustering']
    assert (clustering['num_clusters'], clustering['sinkhorn_iterations']) == (24, 1)
    assert clustering['depth_weight'] == 0
    assert models['+ depth (S3PT)']['clustering'] == {**clustering, 'depth_weight': 4.0}
    assert ladder.images_of('DINO, equal compute', 1000) == 727  # 512 tokens against 704


def test_a_recipe_of_other_views_reaches_every_method(tmp_path: Path) -> None:
    source = camvid(made_camvid(tmp_path), tmp_path)
    chosen = {
        'stem, published colours': ('convolutions', (0.15, 0.5), 0.4),
        'patch filters held': ('patches', (0.5, 1.0), 0.2),
    }
    for name, (stem, scale, brightness) in chosen.items():
        for rung, kind in (('DINO', 'MultiCropViews'), ('CrIBo', 'TwoViews')):
            recipe = ladder.RECIPES[name]
            cfg = ladder.make_config(source, rung, seed=0, images=64, recipe=recipe)
            pipeline = cfg.train_dataloader.dataset.pipeline
            settings = next(dict(s) for s in pipeline if s['type'] == kind)
            views = TRANSFORMS.build(settings)
            assert tuple(views.scale) == scale and settings.get('brightness', 0.4) == brightness
            assert cfg.model.backbone.stem == stem
            assert bool(cfg.model.get('freeze_patch_embed')) == (stem == 'patches')


def test_the_bound_trains_from_two_steps_on(tmp_path: Path) -> None:
    images = camvid(made_camvid(tmp_path), tmp_path).train
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    backbone = VisionTransformer(arch=arch, img_size=32, patch_size=16, out_type='raw')
    trained = train_supervised(copy.deepcopy(backbone), images, steps=2, view=32)
    assert all(torch.isfinite(parameter).all() for parameter in trained.parameters())
    assert not torch.equal(backbone.ln1.bias, trained.ln1.bias)


def test_spread_and_a_page_of_two_seeds(tmp_path: Path) -> None:
    assert spread([1.0]) == '1.0' and spread([1.0, 3.0]) == '2.0 ± 1.4'
    for seed, value in ((0, 40.0), (1, 44.0)):
        figures = dict(mIoU=value, IoU=dict(car=value, tram=None))
        control = dict(mIoU=39.0, IoU=dict(car=39.0, tram=None))
        head = dict(figures, controls=dict(place=control), best_control='place', gain=value - 39)
        run = dict(source='a', rung='CrIBo', seed=seed, images=32, recipe='as published')
        run['losses'] = dict(loss=3 + 0.1 * seed, loss_image=1.0)
        path = tmp_path / f'a/x/CrIBo/{seed}/figures.json'
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(dict(run, knn=head, linear=head)))
    page = write_page(tmp_path).read_text()
    assert '| CrIBo | 32 | 0, 1 | 42.0 ± 2.8 | 39.0 ± 0.0 | 3.0 ± 2.8 | +1.0 |' in page
    assert '| control: place | 39.0 | - |' in page
    assert '| CrIBo | 3.05 ± 0.07 | 1.00 ± 0.00 |' in page


def test_final_losses_are_the_last_tenth_of_the_steps(tmp_path: Path) -> None:
    log = tmp_path / 'now/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [dict(step=s, loss=10.0 - s, loss_image=1.0, lr=0.1) for s in range(1, 21)]
    log.write_text('\n'.join(json.dumps(line) for line in lines))
    assert final_losses(tmp_path) == dict(loss=-9.5, loss_image=1.0)
