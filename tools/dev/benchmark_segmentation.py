"""What a probing step costs beyond the frozen backbone's forward.

``tools/dev/benchmark.py segment``.

Backbone forward, linear step and mask step run in turn in one process on the same batch, so that
noise of the machine meets all three alike; the table has medians and the median of the ratios
within a round. ``--stock`` adds mmseg's own Segmenter (gradients through its backbone).
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

import s3pt_mm.segmentation  # noqa: F401  (registers the heads)
from tools.dev.stopwatch import Timings, interleaved

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'segmenter'
TARGETS = {'linear step': 1.08, 'mask step': 1.5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``tools/dev/benchmark.py segment``."""
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--crop', type=int, default=512, help='pixels')
    parser.add_argument('--rounds', type=int, default=7, help='after one round of warm-up')
    parser.add_argument('--threads', type=int, help="default: torch's")
    parser.add_argument('--dtype', help='inference_dtype of the backbone, e.g. bfloat16')
    parser.add_argument('--stock', action='store_true', help="also mmseg's unfrozen Segmenter")
    parser.add_argument('--device', default='cpu')


def run(args: argparse.Namespace) -> dict[str, Timings]:
    """Measure and print; returns each part's timings."""
    if args.threads:
        torch.set_num_threads(args.threads)
    tasks = build_tasks(args.batch_size, args.crop, args.dtype, args.stock, args.device)
    figures = interleaved(tasks, args.rounds, args.device)
    print(f'{args.batch_size} crops of {args.crop}, ViT-S/16, 13 classes, {args.device}, '
          f'{torch.get_num_threads()} threads, backbone {args.dtype or "float32"}, '
          f'{args.rounds} rounds')  # fmt: skip
    print('| part | seconds | ratio | CPU seconds | CPU ratio | target |')
    print('| --- | ---: | ---: | ---: | ---: | ---: |')
    for name, row in figures.items():
        print(
            f'| {name} | {row.wall:.3f} | {row.ratio:.3f} | {row.cpu:.3f} '
            f'| {row.cpu_ratio:.3f} | {TARGETS.get(name, "-")} |'
        )
    return figures


def build_tasks(
    batch_size: int, crop: int, dtype: str | None, stock: bool, device: str
) -> dict[str, Callable[[], Any]]:
    """Callables by name; the first is the backbone's forward alone."""
    init_default_scope('mmseg')
    MMLogger.get_instance('segment_benchmark', log_level='WARNING')  # not a line a parameter
    torch.manual_seed(0)
    images = torch.randn(batch_size, 3, crop, crop, device=device)
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, 13, (1, crop, crop), device=device)),
            metainfo=dict(img_shape=(crop, crop)),
        )
        for _ in range(batch_size)
    ]
    tasks: dict[str, Callable[[], Any]] = {}
    for head in ('linear', 'mask'):
        cfg = Config.fromfile(CONFIGS / f'{head}_vits16_nuimages.py', import_custom_modules=False)
        cfg.model.backbone.update(img_size=crop, inference_dtype=dtype)
        cfg.model.backbone.init_cfg.checkpoint = 'random'
        model = MODELS.build(cfg.model).to(device)
        model.init_weights()
        if not tasks:
            tasks['backbone forward'] = functools.partial(model.backbone, images)
        tasks[f'{head} step'] = _training_step(model, images, samples)
        if stock:
            tasks[f'{head} step, stock mmseg'] = _training_step(
                _stock(cfg.model, head, crop).to(device), images, samples
            )
    return tasks


def _training_step(model: nn.Module, images: Tensor, samples: list) -> Callable[[], None]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)

    def step() -> None:
        model.train()
        loss, _ = model.parse_losses(model.loss(images, samples))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _stock(ours: Any, head: str, crop: int) -> nn.Module:
    decode_head = dict(ours.decode_head)
    decode_head['type'] = dict(linear='FCNHead', mask='SegmenterMaskTransformerHead')[head]
    backbone = dict(
        type='mmseg.VisionTransformer', img_size=(crop, crop), embed_dims=384, num_heads=6,
        drop_path_rate=0.1, final_norm=True, norm_cfg=dict(type='LN', eps=1e-6),
    )  # fmt: skip
    return MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=backbone,
            decode_head=decode_head,
            test_cfg=dict(mode='whole'),
        )
    )
