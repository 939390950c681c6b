"""Resumed equals uninterrupted, bit for bit, for the shipped methods on ToyDrive."""

import pytest
import torch

from tests.test_reliability.method_runs import small_config, small_petr, small_segmenter
from tests.test_reliability.tiny_run import last_checkpoint, train
from tools.dev.compare_checkpoints import compare_checkpoints

PRETRAINING = ['toydrive/dino_vitt16.py', 'toydrive/cribo_vitt16.py', 'toydrive/s3pt_vitt16.py']
ACCUMULATE = {'optim_wrapper.accumulative_counts': 2}


@pytest.mark.parametrize('config', PRETRAINING)
def test_stopped_in_mid_epoch_at_its_end_and_in_an_accumulation(tmp_path, toydrive, config):
    """9 iterations, a step every second one; stops after 2, 3 (end of epoch) and 7."""

    def run(name, **changes):
        return small_config(config, toydrive, tmp_path / name, **ACCUMULATE, **changes)

    assert train(run('straight'))
    assert not train(run('stopped'), stop_at=2)
    assert not train(run('stopped', resume=True), stop_at=3)
    assert not train(run('stopped', resume=True), stop_at=7)
    assert train(run('stopped', resume=True))
    files = [last_checkpoint(tmp_path / name) for name in ('straight', 'stopped')]
    assert compare_checkpoints(*files) == []
    checkpoint = torch.load(files[0], weights_only=True)
    held = checkpoint['state_dict']
    assert checkpoint['meta']['iter'] == 9
    assert held['image_center.value'].any(), 'the comparison covers a centre that moved'
    if 'dino' not in config:
        assert held['queue.counts'].any() and held['object_center.value'].any()


def stopped_equals_straight(run, folder, stops):
    assert train(run(folder / 'straight'))
    resume = {}
    for stop in stops:
        assert not train(run(folder / 'stopped', **resume), stop_at=stop)
        resume = {'resume': True}
    assert train(run(folder / 'stopped', **resume))
    files = [last_checkpoint(folder / name) for name in ('straight', 'stopped')]
    assert compare_checkpoints(*files) == []
    assert torch.load(files[0], weights_only=True)['meta']['iter'] == 5


def test_segmenter_stopped_before_a_validation_and_in_an_accumulation(
    tmp_path, nuimages_root, pretrained
):
    def run(folder, **changes):
        return small_segmenter(nuimages_root, pretrained, folder, **ACCUMULATE, **changes)

    stopped_equals_straight(run, tmp_path, [2, 3])


def test_petr_stopped_in_an_accumulation(tmp_path, toydrive, pretrained):
    def run(folder, **changes):
        return small_petr(toydrive, pretrained, folder, **ACCUMULATE, **changes)

    stopped_equals_straight(run, tmp_path, [1, 4])
