"""Probing and detection steps and a whole launched run on the pretend accelerator.

``python -m tests.test_pretend.runs OUT.json`` writes what each logged.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, DefaultScope
from torch import nn
from torch.utils.data import Dataset

from tests.test_pretend import device, streams
from tests.test_pretend.steps import ROOT, batch, settle, shrink

VIT = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


@DATASETS.register_module()
class MadeViews(Dataset):
    """Eight images of two views, as the pipeline packs them."""

    metainfo = {}

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        made = batch(1, 2, int(index))
        views, sample = [view[0] for view in made['inputs']], made['data_samples'][0]
        return dict(inputs=views, data_samples=sample)


def step(model: nn.Module, losses) -> dict:  # noqa: ANN001
    """One optimiser step; ``losses()`` is called on the device. Returns the log."""
    with device.Everywhere():
        device.move(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
        device.LOG.clear()
        total = sum(value for name, value in losses().items() if 'loss' in name)
        total.backward()
        optimizer.step()
        report = device.LOG.report()
        assert torch.isfinite(total.held)
    return report


def segmenter(head: str) -> dict:
    """Linear or mask head on a frozen ViT, two crops of 64 pixels."""
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    cfg = Config.fromfile(ROOT / f'configs/segmenter/{head}_vits16_nuimages.py').model
    cfg.backbone.update(arch=VIT, img_size=64)
    cfg.backbone.init_cfg.checkpoint = 'random'
    cfg.decode_head.update(in_channels=16, channels=16)
    cfg.data_preprocessor.size = (64, 64)
    if head == 'mask':
        cfg.decode_head.update(embed_dims=16, num_heads=2)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg)
    samples = []
    for _ in range(2):
        labels = PixelData(data=torch.randint(0, 13, (1, 64, 64)))
        samples.append(SegDataSample(gt_sem_seg=labels, metainfo=dict(img_shape=(64, 64))))
    images = [torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]

    def losses() -> dict:
        data = model.data_preprocessor(dict(inputs=images, data_samples=samples), True)
        return model(**data, mode='loss')

    return step(model, losses)


def petr() -> dict:
    """A small PETR on three cameras."""
    from tests.test_detection.test_petr import small
    from tools.dev.benchmark_detection import make_samples

    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = small()
    samples = make_samples(1, views=3, image_size=(32, 48), objects=3)
    images = torch.randn(1, 3, 3, 32, 48)

    def losses() -> dict:
        there = [sample.to(device.NAME) for sample in samples]
        return model.loss({'imgs': images.to(device.NAME)}, there)

    return step(model, losses)


def launched() -> dict:
    """S3PT for two epochs of four iterations with the config's own hooks, checkpoints included."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    logs: list[dict] = []

    @HOOKS.register_module(force=True)
    class DeviceLogHook(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, *args, **kwargs) -> None:  # noqa: ANN001
            device.LOG.clear()
            streams.STORY.append('step')

        def after_train_iter(self, runner, *args, **kwargs) -> None:  # noqa: ANN001
            logs.append(device.LOG.report())

    cfg = Config.fromfile(ROOT / 'configs/s3pt/vits16_nuscenes.py')
    shrink(cfg, recipe=False)
    cfg.train_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False
    )
    cfg.train_dataloader.dataset = dict(type='mmengine.MadeViews')
    cfg.train_cfg.max_epochs = 2
    cfg.visualizer.vis_backends = []
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmengine.DeviceLogHook')]
    with tempfile.TemporaryDirectory() as folder, device.Everywhere():
        cfg.work_dir = folder
        runner = Runner.from_cfg(cfg)
        before = runner.model.teacher['backbone'].cls_token.held.clone()
        streams.STORY.clear()
        runner.train()
        files = sorted(path.name for path in Path(folder).glob('*.pth'))
        moved = not torch.equal(before, runner.model.teacher['backbone'].cls_token.held)
        held = len(runner.model.queue)
    report = dict(iterations=logs, files=files, story=list(streams.STORY))
    return dict(report, teacher_moved=moved, held=held)


def ahead() -> dict:
    """A batch sent ahead: poison until the preprocessor waits for it, then what it always gives."""
    from s3pt_mm.method.algorithms.token_fields import ViewsPreprocessor

    cfg = Config.fromfile(ROOT / 'configs/s3pt/vits16_nuscenes.py').data_preprocessor
    there = ViewsPreprocessor(**{k: v for k, v in cfg.items() if k != 'type'})
    given, found = batch(2, 2, 5), []
    here = there.forward(given, True)
    with device.Everywhere():
        device.move(there)
        sent = there.send_ahead(given)
        poison = all(bool((view.held == device.POISON).all()) for view in sent.views)
        poison &= bool((sent.fields.depth.held == device.POISON).all())
        found = there.forward(sent, True)
    same = all(map(torch.equal, [v.held for v in found['inputs']], here['inputs']))
    fields = [found['data_samples'], here['data_samples']]
    same &= torch.equal(fields[0].xy.held, fields[1].xy)
    same &= torch.equal(fields[0].depth.held, fields[1].depth)
    return dict(poison=poison, same=same, unsent=type(given).__name__)


if __name__ == '__main__':
    settle()
    torch.manual_seed(0)
    reports = dict(launched=launched(), ahead=ahead())
    reports.update(linear=segmenter('linear'), mask=segmenter('mask'), petr=petr())
    Path(sys.argv[1]).write_text(json.dumps(reports, indent=1))
