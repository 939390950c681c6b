"""The ViT of any checkpoint as a network that computes: its sizes are read from its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s3pt_mm.hosts import compat

compat.apply()  # before mmpretrain.models is imported for the first time

import torch  # noqa: E402
from mmpretrain.models.backbones import VisionTransformer  # noqa: E402

from s3pt_mm.common.conv_stem import StemMixin  # noqa: E402
from s3pt_mm.common.models import differences, shortened  # noqa: E402
from s3pt_mm.weights.convert import STEM, dimensions, to_backbone, unpack  # noqa: E402
from s3pt_mm.weights.layouts import LayoutError  # noqa: E402


class PlainVisionTransformer(StemMixin, VisionTransformer):
    """mmpretrain's ViT, its patches from filters or from a stem of convolutions."""


def from_state(
    content: Mapping[str, Any],
    source: str,
    *,
    network: str = 'teacher',
    num_heads: int | None = None,
    kind: Callable[..., VisionTransformer] = PlainVisionTransformer,
) -> VisionTransformer:
    """mmpretrain's ViT with the weights of a checkpoint, in eval mode, without gradients.

    Args:
        content: What ``read_checkpoint`` returned.
        source: Its name, for messages.
        network: ``teacher`` or ``student``.
        num_heads: Attention heads, which no weight tells; default: one for each 64 of width, as in
            ViT-Ti, S, B and L (4 in ToyDrive's ViT of width 128, whose heads have 32).
        kind: What builds the network; takes the arguments of :class:`PlainVisionTransformer`.

    Returns:
        The network; ``forward`` gives ``(tokens,)``, (B, 1 + patches, d), the class token first.

    Raises:
        LayoutError: No ViT, heads that do not divide its width, or a damaged stem.
    """
    tensors = unpack(content, network, source)
    stem = {name: tensor for name, tensor in tensors.items() if STEM.match(name)}
    if stem:  # no library knows it: all else is checked as if there were filters
        halvings = sum(tensor.ndim == 4 for tensor in stem.values()) - 1
        width, patch = tensors.get('cls_token', torch.empty(0)).shape[-1], 2 ** max(halvings, 0)
        filters = {
            'patch_embed.projection.weight': torch.empty(width, 3, patch, patch, device='meta'),
            'patch_embed.projection.bias': torch.empty(width, device='meta'),
        }
        content = {n: tensor for n, tensor in tensors.items() if n not in stem} | filters
    state = to_backbone(content, network=network, source=source)
    size = dimensions(state)
    image, patch, width = size.pop('img_size'), size.pop('patch_size'), size['embed_dims']
    heads = num_heads or (4 if width == 128 else max(1, width // 64))
    if width % heads:
        raise LayoutError(f'{source}: {heads} heads do not divide the width {width}: --num-heads')
    try:
        model = kind(
            arch={**size, 'num_heads': heads},
            img_size=image,
            patch_size=patch,
            qkv_bias='layers.0.attn.qkv.bias' in state,
            out_type='raw',
            stem='convolutions' if stem else 'patches',
        )
    except ValueError as error:
        raise LayoutError(f'{source}: {error}') from None
    if stem:
        state = {n: tensor for n, tensor in state.items() if n not in filters} | stem
        if found := differences(model.state_dict(), state):
            raise LayoutError(f'{source}: {shortened(found)}')
    model.load_state_dict(state)
    model.eval()  # which returns nothing: mmpretrain's train() does not
    return model.requires_grad_(False)
