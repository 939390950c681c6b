"""The GPU ladder's parts agree with the package's own, and the whole runs on a CPU."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from s3pt_mm.data.geometry.completion import complete_points
from s3pt_mm.data.transforms import Photometric, TokenGeometry
from s3pt_mm.data.transforms.views import draw_box, resize
from s3pt_mm.probes.evaluation import knn_head, linear_head
from tests.test_dev.test_evidence import made_camvid, made_pandaset
from tests.tool_runs import run_tool
from tools.dev.evidence import device_probe, gpu_ladder, packed
from tools.dev.evidence.device_views import Canvas, DeviceViews, draw_boxes, draw_colours


def frames(*, depth: bool) -> packed.Frames:
    """Five noisy images of 90 x 120 pixels; the first three have completed depth."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.integers(0, 256, (5, 3, 15, 20))).float()
    images = torch.nn.functional.interpolate(coarse, size=(90, 120), mode='bilinear').byte()
    grids = {}
    for index in range(3 if depth else 0):
        points = rng.uniform((0, 30, 2), (120, 90, 60), (80, 3)).astype(np.float32)
        done = complete_points(points, (120, 90), method='classical')
        grids[index] = packed.depth_grid(done, (120, 90))
    labels = {index: rng.integers(0, 3, (90, 120)).astype(np.uint8) for index in range(5)}
    every = np.arange(5)
    return packed.Frames('made', images, labels, grids, ('a', 'b', 'c'), every, every, every[:2])


def test_crops_and_token_fields_are_the_packages() -> None:
    made = frames(depth=True)
    views = DeviceViews(Canvas.of({'made': made}, [1], 'cpu'), 5, 0, size=48, num_local=0)
    _, fields = views.next()
    where, spans, mirror = views.geometry
    pixels = views._crop(where[:5], spans.unflatten(0, (2, 5)), mirror.unflatten(0, (2, 5)), 48)
    assert mirror.any() and not mirror.all()
    for row, index in enumerate(where[:5].tolist()):
        boxes, flips = spans[row::5].numpy(), mirror[row::5].numpy()
        image = made.images[index].permute(1, 2, 0).numpy()
        for view, (box, flip) in enumerate(zip(boxes.astype(int), flips, strict=True)):
            expected = resize(image[box[1] : box[3], box[0] : box[2]], 48)[:, :: -1 if flip else 1]
            error = pixels[row + 5 * view].permute(1, 2, 0).numpy() - expected.astype(float)
            assert np.abs(error).max() <= 8 and np.abs(error).mean() < 0.4
        grid = made.depth.get(index, np.zeros((90, 120), np.float32))
        v, u = np.nonzero(grid)
        points = np.stack([u + 0.5, v + 0.5, grid[v, u]], 1)
        given = dict(img=[np.zeros((48, 48, 3))] * 2, view_boxes=boxes, view_flips=flips)
        known = TokenGeometry().transform(dict(given, lidar_uvd=points))
        np.testing.assert_allclose(fields.xy[row], known['token_xy'], rtol=1e-5)
        np.testing.assert_array_equal(fields.has_depth[row], known['token_has_depth'])
        np.testing.assert_allclose(fields.depth[row], known['token_depth'], rtol=1e-4, atol=1e-4)
    assert fields.has_depth.any() and not fields.has_depth.all()


def test_boxes_and_colours_are_distributed_as_the_packages() -> None:
    rng, count = np.random.default_rng(0), 4000
    sizes = np.tile([120, 90], (count, 1))
    np.random.seed(0)
    ours = draw_boxes(rng, sizes, (0.25, 1.0), (3 / 4, 4 / 3))
    theirs = np.stack([draw_box((120, 90), (0.25, 1.0), (3 / 4, 4 / 3), 1) for _ in range(count)])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] <= sizes).all()
    spread = theirs.std(0) / count**0.5
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 6 * spread).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.06)
    # Too wide for any square crop of the full area: the largest allowed one in the middle.
    assert draw_boxes(rng, np.array([[100, 10]]), (1.0, 1.0), (1.0, 1.0)).tolist() == [
        [45, 0, 55, 10]
    ]
    photometric = Photometric(0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, (0.1, 2.0), 0.2)
    ours = draw_colours(rng, count, photometric)
    theirs = np.stack([photometric.as_row(photometric.draw()) for _ in range(count)])
    assert (np.sort(ours[:, :4], 1) == np.arange(4)).all()
    spread = theirs.std(0) / count**0.5
    # Without jitter the package's rows keep the plain order; only there it plays no part.
    assert (np.abs(ours.mean(0) - theirs.mean(0))[4:] < 6 * spread[4:]).all()
    np.testing.assert_allclose(ours.std(0)[4:], theirs.std(0)[4:], rtol=0.06)


def test_probes_answer_as_the_packages_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(300, 16, generator=generator)
    shares = torch.eye(4)[(memory[:, :4]).argmax(1)]
    queries = torch.cat([torch.randn(50, 16, generator=generator), torch.zeros(1, 16)])
    expected = knn_head(k=20)(memory, shares.numpy())(queries[None])[0]
    torch.testing.assert_close(device_probe.knn(memory, shares)(queries), expected)
    expected = linear_head()(memory, shares.numpy())(queries[None])[0]
    torch.testing.assert_close(device_probe.linear(memory, shares)(queries), expected)


def test_small_label_maps_keep_sparse_labels() -> None:
    labels = np.full((40, 40), 255, np.uint8)
    labels[3, 5], labels[39, 39] = 2, 1
    small = packed.resize_labels(labels, (10, 10))
    assert {tuple(at): small[tuple(at)] for at in np.argwhere(small != 255)} == {
        (0, 1): 2,
        (9, 9): 1,
    }
    dense = np.repeat(np.arange(4, dtype=np.uint8), 10)[None].repeat(40, 0)
    assert (packed.resize_labels(dense, (4, 4)) == np.arange(4)).all()


def test_a_run_waits_for_the_controls_of_its_seed(tmp_path: Path, monkeypatch) -> None:
    def found(network: float, control: float) -> dict:
        return dict(network=dict(mIoU=network)), dict(place=dict(mIoU=control))

    def answers(self, jobs: list[gpu_ladder.Job], until: float):
        for job, kind, value in ((jobs[0], 0, 30.0), (jobs[1], 0, 40.0), (jobs[2], 1, 25.0)):
            own = found(value, value)[kind]
            yield replace(job, found=dict(training_seconds=1.0, probes=dict(a=dict(knn=own))))

    monkeypatch.setattr(gpu_ladder.Ladder, '_answers', answers)
    words = dict(workers=0, minutes=1.0, out=tmp_path, batch=4)
    ladder = gpu_ladder.Ladder(argparse.Namespace(**words))
    jobs = [gpu_ladder.Job(rung, seed, 'r', 8) for rung, seed in (('CrIBo', 0), ('DINO', 1))]
    done = ladder.finish([*jobs, gpu_ladder.Job('controls', 0, 'r', 8)])
    assert len(done) == 3
    lines = [json.loads(line) for line in (tmp_path / 'ladder.jsonl').read_text().splitlines()]
    assert [(line['rung'], line['probes']['a']['knn']['gain']) for line in lines] == [
        ('CrIBo', 5.0)
    ]


def test_cribo_chooses_the_recipe_on_a_seed_of_its_own(tmp_path: Path, monkeypatch) -> None:
    values = {'a': 3.0, 'b': 7.0, 'c': 5.0}

    def answers(self, jobs: list[gpu_ladder.Job], until: float):
        for job in jobs:
            name, value = (
                ('place', 1.0) if job.rung == 'controls' else ('network', values[job.recipe])
            )
            probes = dict(made=dict(knn={name: dict(mIoU=value)}))
            yield replace(job, found=dict(training_seconds=1.0, probes=probes))

    monkeypatch.setattr(gpu_ladder.Ladder, '_answers', answers)
    words = dict(workers=0, minutes=1.0, out=tmp_path, batch=4, steps=9, sources=['made'])
    assert gpu_ladder.Ladder(argparse.Namespace(**words))._choose(list(values)) == 'b'
    lines = [json.loads(line) for line in (tmp_path / 'ladder.jsonl').read_text().splitlines()]
    assert [line['seed'] for line in lines[:3]] == [gpu_ladder.HELD_OUT] * 3
    assert lines[3]['gains'] == {'a': 2.0, 'b': 6.0, 'c': 4.0}
    assert json.loads((tmp_path / 'made/recipe.json').read_text())['chosen'] == 'b'


def test_steps_are_planned_with_the_probes_time(tmp_path: Path) -> None:
    ladder = gpu_ladder.Ladder(argparse.Namespace(workers=0, minutes=1.0, out=tmp_path))
    ladder.args.workers, ladder.rate, ladder.probe = 8, 3.0, 40.0
    # Nine runs of eight workers are two rounds: 85 s each, of which a probe takes 40.
    assert ladder._steps(9, 200.0) == 135 and ladder._steps(8, 200.0) == 390
    assert ladder._steps(24, 60.0) < 0


@pytest.mark.slow
def test_a_ladder_from_folders_to_a_page(repository: Path, tmp_path: Path) -> None:
    tool, data, out = 'tools/dev/evidence/gpu_ladder.py', tmp_path / 'data', tmp_path / 'out'
    folders = {'camvid': made_camvid, 'pandaset': made_pandaset}
    words = [f'{name}={make(tmp_path / name)}' for name, make in folders.items()]
    run_tool(repository, tool, '--data', data, '--pack', *words)
    small = '--device cpu --arch least --size 32 --batch 4 --workers 2 --crops 10 --minutes 9'
    rungs = ('--rungs', 'DINO', '+ depth (S3PT)')
    log = run_tool(
        repository, tool, '--data', data, '--out', out, *small.split(), *rungs, '--steps', '2',
        '--seeds', '0', '--recipe', 'head for short runs',
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / 'ladder.jsonl').read_text().splitlines()]
    assert not any('error' in line for line in lines), log
    assert {line['rung'] for line in lines} == {
        'DINO', '+ depth (S3PT)', 'S3PT, two rounds',
        'supervised bound, camvid', 'supervised bound, pandaset',
    }  # fmt: skip
    assert all(set(line['probes']) == set(folders) for line in lines)
    page = (out / 'page.md').read_text()
    for text in ('## camvid', '## pandaset', '| + depth (S3PT) | 8 | 0 |', '| supervised bound |'):
        assert text in page
