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
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from s3pt_mm.common.reading import read_checkpoint
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
_SHOWN_KEYS = 12


class CheckpointMismatchError(RuntimeError):
    """A checkpoint does not have exactly the weights that a backbone needs."""


def read_state_dict(checkpoint: str) -> Mapping[str, Any]:
    """Read the state dict of a checkpoint file or address without executing code from it.

    Args:
        checkpoint: Path or http(s) address.

    Returns:
        The ``state_dict`` (or ``model``) entry where there is one, else the whole mapping.

    Raises:
        FileNotFoundError: The file does not exist.
        DataError: See :func:`~s3pt_mm.common.reading.read_checkpoint`.
    """
    try:
        content = read_checkpoint(checkpoint)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}. {REMEDY}') from None
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return content


def _shorten(names: list[str]) -> str:
    shown = ', '.join(names[:_SHOWN_KEYS])
    more = len(names) - _SHOWN_KEYS
    return f'{shown} and {more} more' if more > 0 else shown


def load_strictly(module: nn.Module, checkpoint: str, prefix: str | None = None) -> None:
    """Fill a module from the part of a checkpoint under a prefix; every name and shape has to fit.

    mmpretrain's ViT resizes the position embedding to its own grid while loading (a load hook), so
    another image
    size is no mismatch.

    Args:
        module: The module to fill.
        checkpoint: Path or URL.
        prefix: Which part of the checkpoint, e.g. ``teacher.backbone.``; None or '' takes all of
            it.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointMismatchError: Nothing under the prefix, or names or shapes that do not fit; the
            message lists them.
    """
    content = read_state_dict(checkpoint)
    prefix = prefix or ''
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    state = OrderedDict(
        (name[len(prefix) :], value)
        for name, value in content.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    )
    if not state:
        heads = sorted({'.'.join(str(name).split('.')[:2]) + '.' for name in content})
        raise CheckpointMismatchError(
            f'Checkpoint {checkpoint!r} has no weight under the prefix {prefix!r}; '
            f'it has {_shorten(heads) or "nothing"}. '
            'Set `init_cfg.prefix` to the part that holds the backbone.'
        )
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    # The position embedding may have another length: the ViT's own load hook resizes it.
    shapes = [
        f'{name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model'
        for name in own
        if name in state
        and state[name].shape != own[name].shape
        and not (name.endswith('pos_embed') and state[name].shape[-1] == own[name].shape[-1])
    ]
    not_finite = [
        name
        for name, value in state.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    faults = [
        f'{what}: {_shorten(names)}'
        for what, names in (
            ('missing in the file', missing),
            ('not in the model', unexpected),
            ('of another shape', shapes),
            ('not finite', not_finite),
        )
        if names
    ]
    if faults:
        raise CheckpointMismatchError(
            f'Checkpoint {checkpoint!r}, prefix {prefix!r}, does not fit '
            f'{type(module).__name__} (architecture or patch size '
            'of another pre-training run?). ' + '; '.join(faults) + '.'
        )
    module.load_state_dict(state, strict=True)


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
            :func:`load_strictly`.
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
            load_strictly(self, checkpoint, init_cfg.get('prefix'))
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
class FrozenVisionTransformer(FrozenMixin, VisionTransformer):
    """mmpretrain's ``VisionTransformer``, frozen; same arguments, same weight names.

    Use ``out_type='featmap'`` for the last feature map (B, C, H / patch, W / patch).
    """
