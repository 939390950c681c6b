"""The sweep: best of three, settings guarded, killed and gone on; with a stand-in for training.

The stand-in writes what ``tools/train.py`` writes and takes a step every 50 ms, so that it can be
killed in the middle; ``tests/test_segmentation/test_toydrive.py`` sweeps with real training.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s3pt_mm.cli import sweep as module
from s3pt_mm.cli.sweep import sweep

TRAIN = """
import json, pathlib, re, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
args = sys.argv[1:]
work = pathlib.Path(args[args.index('--work-dir') + 1])
options = dict(a.split('=', 1) for a in args[args.index('--cfg-options') + 1:])
state = work / 'state.json'
done = json.loads(state.read_text()) if '--resume' in args and state.is_file() else []
while len(done) < int(options.get('train_cfg.max_iters', 6)):
    time.sleep(0.05)
    done.append(len(done))
    state.write_text(json.dumps(done))
    with open(work / 'steps.log', 'a') as log:
        log.write(f'{len(done)}\\n')
lr = float(options['optim_wrapper.optimizer.lr'])
if 'fail' in options:
    sys.exit('boom: no such data')
score = dict(mIoU=50 - abs(lr - 3e-4) * 1e4, mAcc=60.0, aAcc=70.0, options=options)
score['IoU/car'] = 12.5
pathlib.Path(options['val_evaluator.result_file']).write_text(json.dumps(score))
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    path = tmp_path / 'train.py'
    path.write_text(TRAIN)
    monkeypatch.setattr(module, 'TRAIN', path)
    return path


def test_best_of_three_with_all_three(train, tmp_path):
    out = tmp_path / 'out'
    summary = sweep('probe.py', 'weights.pth', out_dir=out)
    assert [run['lr'] for run in summary['runs']] == [8e-4, 3e-4, 8e-5]
    assert summary['best']['lr'] == 3e-4 and summary['best']['mIoU'] == 50
    options = summary['best']['options']
    assert options['model.backbone.init_cfg.checkpoint'] == 'weights.pth'
    assert json.loads((out / 'sweep.json').read_text()) == summary
    for name in ('sweep.md', 'sweep.csv'):
        text = (out / name).read_text()
        assert all(lr in text for lr in ('8e-04', '3e-04', '8e-05')) and text.count('best') == 2


def test_length_schedule_and_validation_go_together(train, tmp_path):
    summary = sweep('p.py', 'w.pth', out_dir=tmp_path / 'o', learning_rates=[1e-3], max_iters=2)
    options = summary['best']['options']
    keys = ('train_cfg.max_iters', 'train_cfg.val_interval', 'param_scheduler.0.end')
    assert [options[key] for key in keys] == ['2', '2', '2']


def test_close_rates_have_folders_of_their_own(train, tmp_path):
    """1e-3 and 1.25e-3 were both `lr_1e-03`, and the second returned the first's result."""
    out = tmp_path / 'out'
    runs = sweep('p.py', 'w.pth', out_dir=out, learning_rates=[1e-3, 1.25e-3], max_iters=1)['runs']
    assert {path.name for path in out.glob('lr_*')} == {'lr_1e-03', 'lr_1.25e-03'}
    rates = [float(run['options']['optim_wrapper.optimizer.lr']) for run in runs]
    assert rates == [1e-3, 1.25e-3]
    assert '1.25e-03' in (out / 'sweep.md').read_text()


def test_done_runs_are_not_trained_again(train, tmp_path):
    out = tmp_path / 'out'
    first = sweep('p.py', 'w.pth', out_dir=out)
    train.write_text('raise SystemExit(9)')
    assert sweep('p.py', 'w.pth', out_dir=out) == first


def test_other_settings_are_refused(train, tmp_path):
    out = tmp_path / 'out'
    sweep('p.py', 'w.pth', out_dir=out, learning_rates=[1e-3])
    with pytest.raises(ValueError, match=r"checkpoint.*'w.pth', 'other.pth'"):
        sweep('p.py', 'other.pth', out_dir=out, learning_rates=[1e-3])


def test_other_weights_at_the_same_path_are_refused(train, tmp_path):
    weights = tmp_path / 'w.pth'
    weights.write_bytes(b'one')
    sweep('p.py', weights, out_dir=tmp_path / 'out', learning_rates=[1e-3])
    sweep('p.py', weights, out_dir=tmp_path / 'out', learning_rates=[1e-3])
    weights.write_bytes(b'two')
    with pytest.raises(ValueError, match='other settings .*content.*Give another --out-dir'):
        sweep('p.py', weights, out_dir=tmp_path / 'out', learning_rates=[1e-3])


@pytest.mark.parametrize('changed', ['hub/model.safetensors', 'base.py'])
def test_so_are_a_folder_of_weights_and_a_config_that_changed(train, tmp_path, changed):
    (tmp_path / 'hub').mkdir()
    (tmp_path / 'hub/model.safetensors').write_bytes(b'one')
    (tmp_path / 'base.py').write_text('crop = 1\n')
    config = tmp_path / 'p.py'
    config.write_text("_base_ = ['base.py']\n")
    options = dict(out_dir=tmp_path / 'out', learning_rates=[1e-3])
    first = sweep(config, tmp_path / 'hub', **options)
    assert sweep(config, tmp_path / 'hub', **options) == first
    (tmp_path / changed).write_text('crop = 2\n')
    with pytest.raises(ValueError, match='other settings .*(content|recipe).*another --out-dir'):
        sweep(config, tmp_path / 'hub', **options)


def test_a_failure_names_the_log(train, tmp_path):
    with pytest.raises(RuntimeError, match=r'(?s)status 1.*sweep.log.*boom: no such data'):
        sweep('p.py', 'w.pth', out_dir=tmp_path / 'o', options=['fail=1'])
    # What ended the first would end the others: they are not begun.
    assert [path.name for path in (tmp_path / 'o').glob('lr_*')] == ['lr_8e-04']


MEET = """
import os
end = time.monotonic() + 120
while len(list(work.parent.glob('lr_*/steps.log'))) < 3:
    time.sleep(0.01)
    assert time.monotonic() < end, 'alone'
score['gpu'] = os.environ['CUDA_VISIBLE_DEVICES']
score["""


def test_one_run_on_each_gpu(train, tmp_path):
    """Each run waits for the other two to begin, so they end only if they run side by side."""
    train.write_text(TRAIN.replace('\nscore[', MEET))
    summary = sweep('p.py', 'w.pth', out_dir=tmp_path / 'o', gpus=['4', '6', '7'])
    assert {run['gpu'] for run in summary['runs']} == {'4', '6', '7'}


@pytest.mark.skipif(sys.platform != 'linux', reason='the death signal is Linux only')
def test_killed_twice_and_gone_on(train, tmp_path, repository):
    """SIGKILL to the sweep; its orphan leaves, and no step is done twice or left out."""
    out = tmp_path / 'out'
    code = (
        'import pathlib; from s3pt_mm.cli import sweep as m; '
        f'm.TRAIN = pathlib.Path({str(train)!r}); '
        f'm.sweep("p.py", "w.pth", out_dir=pathlib.Path({str(out)!r}), max_iters=15)'
    )

    def start():
        return subprocess.Popen([sys.executable, '-c', code], cwd=repository)

    for lr, step in (('8e-04', 4), ('3e-04', 7)):
        process = start()
        log = out / f'lr_{lr}' / 'steps.log'
        wait_for(lambda log=log, step=step: log.is_file() and len(log.read_text().split()) >= step)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / f'lr_{lr}' / 'result.json').exists()
    assert start().wait(60) == 0
    summary = json.loads((out / 'sweep.json').read_text())
    assert summary['best']['lr'] == 3e-4 and len(summary['runs']) == 3
    for lr in ('8e-04', '3e-04', '8e-05'):
        steps = [int(s) for s in (out / f'lr_{lr}' / 'steps.log').read_text().split()]
        # A kill may fall between a step's state and its log line; never two trainers at once.
        assert steps == sorted(set(steps)) and len(steps) >= 14


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'timed out'
        time.sleep(0.01)


def test_the_real_launcher_exists():
    assert Path(module.TRAIN).is_file() and os.path.basename(module.TRAIN) == 'train.py'
