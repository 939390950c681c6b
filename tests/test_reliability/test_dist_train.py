"""The launcher itself: tools/dist_train.sh on this machine's CPU."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from tools.dev.compare_checkpoints import compare_checkpoints

SMALL = [
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'model.backbone.arch.num_layers=1',
    'model.backbone.arch.embed_dims=32',
    'model.backbone.drop_path_rate=0.3',
    'model.head.num_prototypes=32',
    'model.head.hidden_channels=32',
    'model.clustering.num_clusters=6',
    'model.queue_images=12',
    'auto_scale_lr.base_batch_size=4',
    'visualizer.vis_backends=[]',
    'log_level=INFO',
    'default_hooks.checkpoint.by_epoch=False',
]


def launch(repository, toydrive, folder, ranks, *options, resume=False):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = ['bash', 'tools/dist_train.sh', 'configs/toydrive/s3pt_vitt16.py', str(ranks)]
    command += ['--work-dir', str(folder), *(['--resume'] if resume else [])]
    data = f'train_dataloader.dataset.data_root={toydrive}/'
    return subprocess.Popen(
        [*command, '--cfg-options', data, *SMALL, *options],
        cwd=repository,
        env={**os.environ, 'PYTHON': sys.executable, 'PORT': str(port), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def workers_of(process, ranks, folder):
    """Process ids by rank, once training is under way."""
    deadline = time.monotonic() + 240
    while not (folder / 'last_checkpoint').exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, 'no checkpoint within four minutes'
        time.sleep(0.1)
    found = {}
    children = subprocess.run(
        ['ps', '-ewwo', 'pid=,ppid=,args='], capture_output=True, text=True, check=True
    )
    for line in children.stdout.splitlines():
        pid, parent, args = line.split(None, 2)
        if int(parent) == process.pid and 'train.py' in args:
            with open(f'/proc/{pid}/environ', 'rb') as file:
                rank = re.search(rb'(?:^|\0)RANK=(\d+)', file.read())
            found[int(rank.group(1))] = int(pid)
    assert sorted(found) == list(range(ranks))
    return found


def end(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@pytest.mark.slow
def test_a_rank_that_dies_stops_the_others_and_is_named(tmp_path, toydrive, repository):
    process = launch(
        repository,
        toydrive,
        tmp_path,
        2,
        'train_cfg.max_epochs=400',
        'default_hooks.checkpoint.interval=1',
    )
    try:
        ranks = workers_of(process, 2, tmp_path)
        os.kill(ranks[1], signal.SIGKILL)
        killed = time.monotonic()
        output, _ = process.communicate(timeout=300)
        seconds = time.monotonic() - killed
    finally:
        end(process)
    print(f'all ranks stopped {seconds:.1f} s after the death of rank 1')
    assert process.returncode != 0
    assert re.search(r'rank\s*:\s*1 ', output), output[-3000:]
    assert 'Signal 9 (SIGKILL)' in output
    with pytest.raises(ProcessLookupError):
        os.kill(ranks[0], 0)


@pytest.mark.slow
def test_sigterm_to_one_rank_stops_all_and_resuming_is_exact(tmp_path, toydrive, repository):
    """Two ranks, in the middle of an accumulation: all save at the same optimiser step, and go on
    from it."""
    options = [
        'train_cfg.max_epochs=4',
        'default_hooks.checkpoint.interval=2',
        'optim_wrapper.accumulative_counts=3',
    ]
    straight = launch(repository, toydrive, tmp_path / 'straight', 2, *options)
    stopped = None
    try:
        output, _ = straight.communicate(timeout=400)
        assert straight.returncode == 0, output[-3000:]
        stopped = launch(repository, toydrive, tmp_path / 'stopped', 2, *options)
        os.kill(workers_of(stopped, 2, tmp_path / 'stopped')[1], signal.SIGTERM)
        output, _ = stopped.communicate(timeout=120)
        assert stopped.returncode != 0
        assert 'continue from' in output, output[-3000:]
        stopped = launch(repository, toydrive, tmp_path / 'stopped', 2, *options, resume=True)
        output, _ = stopped.communicate(timeout=400)
        assert stopped.returncode == 0, output[-3000:]
    finally:
        end(straight)
        if stopped is not None:
            end(stopped)
    files = [(tmp_path / name / 'last_checkpoint').read_text() for name in ('straight', 'stopped')]
    assert compare_checkpoints(*files) == []
    assert len(torch.load(files[0], weights_only=True)['exact_resume']['random']) == 2
