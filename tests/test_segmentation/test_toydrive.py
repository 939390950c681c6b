"""End to end, by the command line, on ToyDrive: generate, prepare, sweep with a kill, test,
figures."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s3pt_mm.data.nuimages_masks import create_nuimages
from s3pt_mm.toydrive import ToyDriveConfig, generate
from tests.tool_runs import run_tool

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@pytest.fixture(scope='module')
def toydrive(tmp_path_factory) -> Path:
    config = ToyDriveConfig(
        outputs=('nuimages', 'cityscapes'),
        nuimages_train=4,
        nuimages_val=2,
        cityscapes_train=2,
        cityscapes_val=1,
        image_scale=0.15,
        workers=1,
    )
    root = generate(tmp_path_factory.mktemp('toydrive') / 'data', config, progress=False)
    create_nuimages(root / 'nuimages', progress=False)
    return root


def options(root: Path) -> list[str]:
    return [
        *(f'{loader}.dataset.data_root={root}' for loader in LOADERS),
        *(f'{loader}.num_workers=0' for loader in LOADERS),
        *(f'{loader}.persistent_workers=False' for loader in LOADERS),
        'train_dataloader.batch_size=2',
    ]


def domain(
    repository: Path, day: Path, weather: str, config: str, checkpoint: Path, out: Path
) -> dict:
    """Tests a model on ToyDrive in another weather, by the shipped target and mapping."""
    other = generate(
        out / 'data',
        ToyDriveConfig(
            outputs=('nuimages',),
            nuimages_train=1,
            nuimages_val=1,
            image_scale=0.15,
            weather=weather,
            workers=1,
        ),
        progress=False,
    )
    create_nuimages(other / 'nuimages', progress=False)
    loader = 'test_dataloader'
    single = (f'{loader}.num_workers=0', f'{loader}.persistent_workers=False')
    run_tool(
        repository, 'tools/domain_generalisation.py', config, checkpoint,
        '--target', f'configs/toydrive/targets/{weather}.py', '--mapping',
        f'toydrive_day_to_{weather}', '--out-dir', out, '--cfg-options', *single,
        f'{loader}.dataset.data_root={day / "nuimages"}', '--target-options', *single,
        f'{loader}.dataset.data_root={other / "nuimages"}',
    )  # fmt: skip
    return json.loads((out / 'domain.json').read_text())


@pytest.mark.slow
def test_sweep_survives_a_kill_then_test_and_figures(repository, toydrive, tmp_path):
    root = toydrive / 'nuimages'
    config = 'configs/toydrive/linear_vitt16_nuimages.py'
    out = tmp_path / 'sweep'
    command = [
        sys.executable, 'tools/sweep.py', config, 'random', '--out-dir', str(out),
        '--lr', '3e-3', '--max-iters', '6',
        '--cfg-options', *options(root), 'default_hooks.checkpoint.interval=2',
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not list(out.glob('lr_*/iter_*.pth')):
        assert process.poll() is None and time.monotonic() < end, 'no checkpoint before the kill'
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run_tool(repository, *command[1:])
    summary = json.loads((out / 'sweep.json').read_text())
    assert [r['lr'] for r in summary['runs']] == [3e-3]
    logs = (out / 'lr_3e-03' / 'sweep.log').read_text()
    assert logs.count('Checkpoints will be saved') == 2  # it was killed, and it went on
    checkpoint = out / 'lr_3e-03' / 'iter_6.pth'
    run_tool(
        repository, 'tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'test',
        '--out', tmp_path / 'predictions', '--cfg-options', *options(root),
        f'test_evaluator.result_file={tmp_path / "test.json"}',
    )  # fmt: skip
    tested = json.loads((tmp_path / 'test.json').read_text())
    assert tested['mIoU'] == pytest.approx(summary['runs'][0]['mIoU'])
    assert len(list((tmp_path / 'predictions').glob('*.png'))) == 2
    run_tool(
        repository, 'tools/report.py', 'qualitative', '--data', root / 'nuimages_val.json',
        '--rows', 2, '--pred', f'random={tmp_path / "predictions"}', '--out', tmp_path / 'q',
    )  # fmt: skip
    for weather in ('night', 'fog'):
        report = domain(repository, toydrive, weather, config, checkpoint, tmp_path / weather)
        assert report['source']['mIoU'] == pytest.approx(tested['mIoU'])
        # A few iterations on a tiny set: an accuracy, of any size.
        assert report['target']['images'] == 1 and 0 <= report['target']['aAcc'] <= 100
        assert report['drop'] == report['source']['mIoU'] - report['target']['mIoU']
    runs = ['--run', f'a={out / "sweep.json"}', f'b={tmp_path / "test.json"}']
    run_tool(repository, 'tools/report.py', 'objectwise', *runs, '--out', tmp_path / 'o')
    run_tool(repository, 'tools/report.py', 'table5', *runs, '--out', tmp_path / 't')
    assert all((tmp_path / name).is_file() for name in ('q.pdf', 'q.png', 'o.pdf', 't.tex'))


@pytest.mark.slow
def test_mask_transformer_on_cityscapes(repository, toydrive, tmp_path):
    result = tmp_path / 'val.json'
    run_tool(
        repository, 'tools/train.py', 'configs/toydrive/mask_vitt16_cityscapes.py',
        '--work-dir', tmp_path / 'work', '--cfg-options', *options(toydrive / 'cityscapes'),
        'model.backbone.init_cfg.checkpoint=random', 'train_cfg.max_iters=2',
        'train_cfg.val_interval=2', f'val_evaluator.result_file={result}',
    )  # fmt: skip
    figures = json.loads(result.read_text())
    assert figures['images'] == 1 and len(figures['classes']) == 19
    assert 0 < figures['mIoU'] < 100


@pytest.mark.slow
def test_absent_checkpoint_stops_the_command_line(repository, toydrive, tmp_path):
    done = subprocess.run(
        [sys.executable, 'tools/train.py', 'configs/toydrive/linear_vitt16_nuimages.py',
         '--work-dir', str(tmp_path), '--cfg-options', *options(toydrive / 'nuimages')],
        cwd=repository, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert '--cfg-options model.backbone.init_cfg.checkpoint=PATH' in done.stdout + done.stderr
    assert not list(tmp_path.glob('iter_*.pth'))
