"""Time and memory of PETR's head and of a whole step with a frozen backbone.

``python tools/dev/benchmark.py petr`` times a training step (forward, loss, backward) of the head
at the published size on random features and the calibration of a nuScenes-like rig. With
``--reference DIR``, a checkout of mmdetection3d (its ``projects/PETR`` is imported from there),
both heads run in turn in one process on equal weights and inputs, and the losses are compared.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

import s3pt_mm.detection  # noqa: F401  registers
from tools.dev.stopwatch import interleaved

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'petr'
IMAGE_SIZE = (320, 800)
VIEWS = 6
OBJECTS = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument('--steps', type=int, default=3, help='timed steps of each variant')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads')
    parser.add_argument(
        '--clock',
        choices=('wall', 'cpu'),
        default='wall',
        help="cpu: the process's own seconds; with --threads 1 for a machine that others use too",
    )
    parser.add_argument(
        '--attention',
        choices=('plain', 'kernel'),
        default='plain',
        help="the decoder's",
    )
    parser.add_argument(
        '--dropout',
        type=float,
        default=0.0,
        help='0 makes losses comparable; 0.1 is what training uses',
    )
    parser.add_argument(
        '--reference', type=Path, help='checkout of mmdetection3d to compare with, outside of here'
    )
    parser.add_argument(
        '--backbone', action='store_true', help='time a ViT-S/16 step with frozen backbone instead'
    )
    parser.add_argument(
        '--inference-dtype', choices=('bfloat16',), help="the frozen backbone's, with --backbone"
    )


def make_samples(
    count: int, views: int = VIEWS, image_size: tuple[int, int] = IMAGE_SIZE, objects: int = OBJECTS
) -> list[Det3DDataSample]:
    """Samples with the calibration of a ring of cameras and random true boxes.

    Args:
        count: Samples.
        views: Cameras in the ring.
        image_size: (height, width), pixels.
        objects: True boxes of each sample.
    """
    generator = np.random.RandomState(0)
    height, width = image_size
    intrinsic = np.eye(4)
    intrinsic[0, 0] = intrinsic[1, 1] = 0.79 * width
    intrinsic[:2, 2] = width / 2, height / 2
    matrices = []
    for angle in 2 * np.pi * np.arange(views) / views:
        cosine, sine = np.cos(angle), np.sin(angle)
        lidar2cam = np.eye(4)
        lidar2cam[:3, :3] = [[sine, -cosine, 0], [0, 0, -1], [cosine, sine, 0]]
        lidar2cam[:3, 3] = 0.0, -0.3, -0.8
        matrices.append(intrinsic @ lidar2cam)
    samples = []
    for _ in range(count):
        low = [-50, -50, -2, 0.5, 0.5, 1, -3.1, -5, -5]
        high = [50, 50, 1, 6, 3, 3, 3.1, 5, 5]
        boxes = torch.tensor(generator.uniform(low, high, (objects, 9)), dtype=torch.float32)
        sample = Det3DDataSample(
            metainfo={'lidar2img': matrices, 'img_shape': image_size, 'pad_shape': image_size}
        )
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9),
            labels_3d=torch.from_numpy(generator.randint(0, 10, objects)),
        )
        samples.append(sample)
    return samples


def train_step(head: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], Tensor]:
    """A step that zeroes, computes, sums and goes back."""

    def step() -> Tensor:
        head.zero_grad(set_to_none=True)
        total = sum(losses().values())
        total.backward()
        return total.detach()

    return step


def build_head(dropout: float, attention: str = 'plain') -> nn.Module:
    """The published head: 256 channels, 900 queries, 6 layers."""
    config = Config.fromfile(CONFIGS / 'vovnet99_nuscenes.py').model.pts_bbox_head
    config.decoder.update(dropout=dropout, attention=attention)
    return MODELS.build(config).train()


def build_reference(checkout: Path, dropout: float) -> nn.Module:
    """mmdetection3d's ``PETRHead`` out of a checkout, as its config has it."""
    folder = checkout.resolve() / 'projects' / 'PETR'
    if not (folder / 'petr' / 'petr_head.py').is_file():
        raise FileNotFoundError(f'{checkout} is no checkout of mmdetection3d: no {folder}/petr')
    sys.path.insert(0, str(checkout.resolve()))
    importlib.import_module('projects.PETR.petr')
    source = next((folder / 'configs').glob('petr_vovnet*.py')).read_text()
    # Its bases belong to the checkout's own configs; the model does not need them.
    config = Config.fromstring('_base_ = []\n' + source.split(']', 1)[1], '.py').model
    head = config.pts_bbox_head
    layers = head.transformer.decoder.transformerlayers
    layers.ffn_dropout = dropout
    for attention in layers.attn_cfgs:
        attention.attn_drop = dropout
        attention.dropout_layer.drop_prob = dropout
    return MODELS.build(head | {'train_cfg': config.train_cfg.pts}).train()


def run_head(args: argparse.Namespace) -> dict[str, float]:
    """Head step, alone or in turn with the reference; seconds and, with a reference, the ratio."""
    size = (IMAGE_SIZE[0] // 16, IMAGE_SIZE[1] // 16)
    torch.manual_seed(0)
    samples = make_samples(1)
    feature = torch.randn(1, VIEWS, 256, *size)
    head = build_head(args.dropout, args.attention)
    steps = {'ours': train_step(head, lambda: head.loss(feature, samples))}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = steps['ours']()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f'peak memory of the process: {after / 1e6:.2f} GB, {before / 1e6:.2f} before the step')
    if args.reference:
        reference = build_reference(args.reference, args.dropout)
        reference.load_state_dict(head.state_dict(), strict=True)
        truth = [sample.gt_instances_3d for sample in samples]

        def losses() -> dict[str, Tensor]:
            metas = [sample.metainfo | {'img_shape': [IMAGE_SIZE] * VIEWS} for sample in samples]
            outputs = reference([feature], metas)
            return reference.loss_by_feat(
                [one.bboxes_3d for one in truth], [one.labels_3d for one in truth], outputs
            )

        steps['reference'] = train_step(reference, losses)
        theirs = steps['reference']()
        print(f'total loss: ours {total:.5f}, reference {theirs:.5f} (comparable without dropout)')
    result = _seconds(steps, args)
    for name, seconds in result.items():
        print(f'{name}: {seconds:.2f} s a step')
    if args.reference:
        result['ratio'] = result['ours'] / result['reference']
        print(f'ours / reference: {result["ratio"]:.3f}')
    return result


def _seconds(steps: dict[str, Callable[[], object]], args: argparse.Namespace) -> dict[str, float]:
    return {
        name: row.cpu if args.clock == 'cpu' else row.wall
        for name, row in interleaved(steps, args.steps).items()
    }


def build_step(device: torch.device, *, tiny: bool = False) -> Callable[[], Tensor]:
    """A ViT-S/16 step of two samples on a device; ``tiny``: two layers and small images."""
    init_default_scope('mmdet3d')
    config = Config.fromfile(CONFIGS / 'vits16_nuscenes.py').model
    size = IMAGE_SIZE
    if tiny:
        size = (64, 160)
        arch = dict(embed_dims=48, num_layers=2, num_heads=4, feedforward_channels=96)
        config.img_backbone.update(arch=arch, img_size=size)
        config.pts_bbox_head.update(in_channels=48, embed_dims=48, num_query=30)
        config.pts_bbox_head.decoder.update(num_layers=2, num_heads=4)
    model = MODELS.build(config).to(device).train()
    samples = [sample.to(device) for sample in make_samples(2, image_size=size)]
    inputs = {'imgs': torch.randn(2, VIEWS, 3, *size, device=device)}
    return train_step(model, lambda: model.loss(inputs, samples))


def run_backbone(args: argparse.Namespace) -> dict[str, float]:
    """A whole ViT-S/16 step against its backbone's forward and its head's step, apart."""
    config = Config.fromfile(CONFIGS / 'vits16_nuscenes.py').model
    config.img_backbone.inference_dtype = args.inference_dtype
    config.pts_bbox_head.decoder.update(dropout=args.dropout, attention=args.attention)
    model = MODELS.build(config).train()  # never initialised: random weights are as fast
    samples = make_samples(1)
    inputs = {'imgs': torch.randn(1, VIEWS, 3, *IMAGE_SIZE)}
    with torch.no_grad():
        feature = model.extract_feat(inputs)
    head = model.pts_bbox_head
    result = _seconds(
        {
            'backbone': lambda: model.extract_feat(inputs),
            'head': train_step(head, lambda: head.loss(feature, samples)),
            'whole': train_step(model, lambda: model.loss(inputs, samples)),
        },
        args,
    )
    result['ratio'] = result['whole'] / (result['backbone'] + result['head'])
    for name in ('backbone', 'head', 'whole'):
        print(f'{name}: {result[name]:.2f} s')
    print(f'whole / (backbone + head): {result["ratio"]:.3f}')
    return result


def run(args: argparse.Namespace) -> dict[str, float]:
    """Runs what the options ask for and prints it.

    Returns:
        Median seconds by name, and ``ratio`` where two things are compared.
    """
    if args.steps < 1:
        raise ValueError(f'--steps must be at least 1, got {args.steps}')
    torch.set_num_threads(args.threads)
    if DefaultScope.get_current_instance() is None:
        init_default_scope('mmdet3d')
    return run_backbone(args) if args.backbone else run_head(args)
