"""A few training steps of the real algorithms at tiny sizes, on any distribution of images over
ranks."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch

from s3pt_mm.hosts import compat

compat.apply()  # before mmpretrain: this module is also the first import of the rank processes

from mmengine.dist import get_rank, get_world_size  # noqa: E402
from mmengine.model import MMDistributedDataParallel  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

import s3pt_mm.method.algorithms  # noqa: E402, F401 - registers the algorithms
from s3pt_mm.method.hooks import LastLayerFreezeHook  # noqa: E402

SIZE, PATCH = 48, 16
TOKENS = (SIZE // PATCH) ** 2
IMAGES = 8


def tiny_model(algorithm: str, **changes: object) -> torch.nn.Module:
    """DINO, CrIBo or S3PT in float64: 2 layers, 16 wide, 24 prototypes, no drop path."""
    head = {'num_prototypes': 24, 'hidden_channels': 32, 'bottleneck_channels': 16}
    cfg = {
        'type': algorithm,
        'backbone': {
            'type': 'VisionTransformer',
            'arch': {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 32},
            'img_size': SIZE,
            'patch_size': PATCH,
            'out_type': 'raw',
            'drop_path_rate': 0.0,
        },
        'head': head,
        'data_preprocessor': {'type': 'mmengine.BaseDataPreprocessor'},  # keeps float64
    }
    if algorithm == 'S3PTDINO':
        head['with_objects'] = False
    else:
        cfg |= {
            'clustering': {'num_clusters': 5, 'cost_scope': 'image'},
            'queue_images': 2 * IMAGES,
            'queue_dtype': 'float64',
        }
    for name, value in changes.items():
        cfg[name] = {**cfg[name], **value} if isinstance(value, dict) else value
    torch.manual_seed(0)
    # A runner of an earlier test may have left another library's scope behind.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
    model.init_weights()
    # Prototypes are drawn small: spread them, so that gradients are not all alike.
    for parameter in model.student['head'].parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.teacher.load_state_dict(model.student.state_dict())
    return model.double()


def batch_of(step: int, images: Sequence[int], *, crops: int, apart: Sequence[int] = ()) -> dict:
    """The same images whoever asks for them.

    Args:
        step: Training step.
        images: Which of the step's images.
        crops: Views, the first two of which are global.
        apart: Images whose two views show places far from each other, so that no cluster spans
            both.
    """
    views, samples = [[] for _ in range(crops)], []
    for image in images:
        generator = torch.Generator().manual_seed(1000 * step + image)
        texture = torch.randn(3, SIZE, SIZE, generator=generator, dtype=torch.float64)
        for view in views:
            noise = torch.randn(3, SIZE, SIZE, generator=generator, dtype=torch.float64)
            view.append(texture + 0.5 * noise)
        xy = 50 * torch.rand(2, TOKENS, 2, generator=generator)
        if image in apart:
            xy[1] += 1e5
        samples.append(
            DataSample(
                token_xy=xy,
                token_depth=60 * torch.rand(2, TOKENS, generator=generator),
                token_has_depth=torch.rand(2, TOKENS, generator=generator) < 0.7,
                # Seed 3 draws one first token from each view.
                sample_seed=torch.tensor(3 if image in apart else image),
            )
        )
    return {'inputs': [torch.stack(view) for view in views], 'data_samples': samples}


def train_steps(
    algorithm: str,
    layout: Sequence[Sequence[int]],
    changes: dict | None = None,
    steps: int = 3,
    apart: Sequence[int] = (),
    accumulate: int = 1,
    last: Sequence[Sequence[int]] | None = None,
    frozen: int = 0,
) -> dict:
    """Trains on this rank's share of every step's images.

    Args:
        algorithm: Registered name.
        layout: Image numbers of each rank; of each micro-batch, when ``accumulate`` is over 1.
        changes: To the model's config.
        steps: Optimiser steps.
        apart: See :func:`batch_of`.
        accumulate: Micro-batches a step.
        last: Layout of the last step, where it differs: the batch that an epoch ends with.
        frozen: Steps with frozen prototypes.

    Returns:
        ``losses`` of every step, ``gradients`` before every step, ``state``: the state dict at the
        end.
    """
    model = tiny_model(algorithm, **(changes or {}))
    bare = model
    if get_world_size() > 1:
        model = MMDistributedDataParallel(
            model, device_ids=None, broadcast_buffers=False, find_unused_parameters=False
        )
    wrapper = Recording(
        torch.optim.AdamW([p for p in bare.parameters() if p.requires_grad], lr=1e-2),
        accumulative_counts=accumulate,
    )
    wrapper.named = dict(bare.student.named_parameters())
    losses = []
    freeze, runner = LastLayerFreezeHook(iterations=frozen), SimpleNamespace(epoch=0)
    runner.model, runner.optim_wrapper = model, wrapper
    freeze.before_train(runner)
    for runner.iter in range(steps):
        step = runner.iter
        freeze.before_train_iter(runner, 0)
        bare.epoch = step  # the cross-image term from the second step on
        dealt = last if last is not None and step == steps - 1 else layout
        for micro in range(accumulate):
            images = dealt[micro] if accumulate > 1 else dealt[get_rank()]
            crops = 4 if algorithm == 'S3PTDINO' else 2
            batch = batch_of(step, images, crops=crops, apart=apart)
            logged = model.train_step(batch, wrapper)
            losses.append({name: value.detach().double() for name, value in logged.items()})
        bare.update_teacher(0.9)
    state = {name: value.clone() for name, value in bare.state_dict().items()}
    return {'losses': losses, 'gradients': wrapper.gradients, 'state': state}


class Recording(OptimWrapper):
    """Keeps the gradients that each step uses."""

    def step(self, **kwargs: object) -> None:
        gradients = {n: p.grad.clone() for n, p in self.named.items() if p.grad is not None}
        self.__dict__.setdefault('gradients', []).append(gradients)
        super().step(**kwargs)
