"""A frozen image backbone: no gradient, no drop path, no change of weights or buffers.

Both evaluations (segmentation and detection) probe a pre-trained ViT, so "frozen" has to mean
frozen. mmpretrain's ``frozen_stages`` switches the gradients off, but calls ``eval()`` only once,
at
construction; the next ``model.train()`` undoes it and drop path is random again. mmengine's
``Pretrained`` initialiser warns about keys that do not fit and goes on. Here the backbone stays in
eval mode, keeps no activations, and a checkpoint either fits or is an error.

In a config of mmseg or mmdet3d (``custom_imports`` lists ``s3pt_mm.weights.frozen``)::

    backbone=dict(
        type='mmpretrain.FrozenVisionTransformer', arch='deit-small', img_size=512, patch_size=16,
        out_type='featmap', inference_dtype=None,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='teacher.backbone.'))

``checkpoint`` is one argument of a run: ``--cfg-options model.backbone.init_cfg.checkpoint=PATH``;
the word ``random`` asks for random weights in so many letters (tests, baselines).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from s3pt_mm.common.conv_stem import StemMixin
from s3pt_mm.common.models import load_strictly
from s3pt_mm.hosts import compat

compat.apply()  # before mmpretrain.models is imported for the first time

from mmpretrain.models.backbones import VisionTransformer  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402

RANDOM = 'random'
"""The value of ``init_cfg.checkpoint`` that asks for random weights."""

REMEDY = (
    'Give a checkpoint of pre-training with '
    '`--cfg-options model.backbone.init_cfg.checkpoint=PATH` '
    '(detection: model.img_backbone.init_cfg.checkpoint), '
    f"or the word '{RANDOM}' in its place to probe random weights on purpose."
)

_DTYPES = {
    None: None,
    'bfloat16': torch.bfloat16,
    'bf16': torch.bfloat16,
    'float16': torch.float16,
    'fp16': torch.float16,
}


class FrozenMixin(BaseModule):
    """Freezes the backbone class it stands before in the bases.

    The forward runs without autograd, in eval mode whatever the surrounding model's mode is, and
    returns tensors that heads can
    train on (``no_grad``, not ``inference_mode``, whose tensors a head could not save for its own
    backward).

    Args:
        inference_dtype: None computes in the dtype of the weights (or of a surrounding autocast);
            'bfloat16' or 'float16' run
            the backbone under autocast and hand float32 features over.
        init_cfg: ``dict(type='Pretrained', checkpoint=..., prefix=...)``; loaded strictly by
            :func:`~s3pt_mm.common.models.load_strictly`.
        freeze: False trains it after all, from the same weights, as people do after probing; give
            the optimiser ``paramwise_cfg=dict(layer_decay_rate=...)``
            (:class:`~s3pt_mm.method.param_groups.PretrainOptimConstructor`).
        kwargs: Arguments of the backbone class.
    """

    init_cfg: Any

    def __init__(
        self,
        *args: Any,
        inference_dtype: str | None = None,
        init_cfg: dict | None = None,
        freeze: bool = True,
        **kwargs: Any,
    ) -> None:
        if inference_dtype not in _DTYPES:
            raise ValueError(
                f'inference_dtype {inference_dtype!r} is none of '
                f'{[name for name in _DTYPES if name]} or None.'
            )
        super().__init__(*args, init_cfg=init_cfg, **kwargs)
        self.inference_dtype = inference_dtype
        self.freeze = freeze
        if freeze:
            self.requires_grad_(False)
            self.train(False)

    def train(self, mode: bool = True) -> nn.Module:
        """Frozen, stay in eval mode: drop path and dropout never run here."""
        super().train(mode and not getattr(self, 'freeze', True))
        return self

    def init_weights(self) -> None:
        """Load the checkpoint that ``init_cfg`` names, strictly.

        Raises:
            ValueError: No checkpoint named.
            FileNotFoundError: The checkpoint does not exist.
            CheckpointMismatchError: It does not fit.
        """
        init_cfg = self.init_cfg
        checkpoint = init_cfg.get('checkpoint') if isinstance(init_cfg, Mapping) else None
        if not checkpoint or init_cfg.get('type') != 'Pretrained':
            raise ValueError(
                f'A frozen {type(self).__name__} needs trained weights, '
                f'but init_cfg is {init_cfg}. {REMEDY}'
            )
        if checkpoint == RANDOM:
            # The host's initialiser runs as if no init_cfg was given.
            self.init_cfg = None
            try:
                super().init_weights()
            finally:
                self.init_cfg = init_cfg
            print_log(
                f'{type(self).__name__}: frozen at RANDOM weights, as asked.',
                logger='current',
                level=logging.WARNING,
            )
        else:
            load_strictly(self, checkpoint, init_cfg.get('prefix'), remedy=REMEDY)
            print_log(
                f'{type(self).__name__}: every weight loaded from {checkpoint}, '
                f'prefix {init_cfg.get("prefix")!r}.',
                logger='current',
            )
        self._is_init = True

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """The backbone's outputs; detached when frozen.

        Args:
            x: Images (B, 3, H, W).

        Returns:
            The host class's outputs; float32 when ``inference_dtype`` is set.
        """
        dtype = _DTYPES[self.inference_dtype]
        context = (
            torch.autocast(x.device.type, dtype=dtype)
            if dtype is not None
            else contextlib.nullcontext()
        )
        learns = torch.is_grad_enabled() and not self.freeze
        with context, torch.set_grad_enabled(learns):
            outputs = super().forward(x, *args, **kwargs)
        if dtype is not None:
            outputs = tuple(output.float() for output in outputs)
        return outputs


@MODELS.register_module()
class FrozenVisionTransformer(FrozenMixin, StemMixin, VisionTransformer):
    """mmpretrain's ``VisionTransformer``, frozen; same arguments, same weight names.

    ``stem='convolutions'`` is for weights that were trained so.

    Use ``out_type='featmap'`` for the last feature map (B, C, H / patch, W / patch).
    """
