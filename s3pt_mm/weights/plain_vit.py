"""The ViT of any checkpoint as a network that computes: its sizes are read from its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from s3pt_mm.hosts import compat

compat.apply()  # before mmpretrain.models is imported for the first time

from mmpretrain.models.backbones import VisionTransformer  # noqa: E402

from s3pt_mm.weights.convert import dimensions, to_backbone  # noqa: E402
from s3pt_mm.weights.layouts import LayoutError  # noqa: E402


def from_state(
    content: Mapping[str, Any],
    source: str,
    *,
    network: str = 'teacher',
    num_heads: int | None = None,
    kind: Callable[..., VisionTransformer] = VisionTransformer,
) -> VisionTransformer:
    """mmpretrain's ViT with the weights of a checkpoint, in eval mode, without gradients.

    Args:
        content: What ``read_checkpoint`` returned.
        source: Its name, for messages.
        network: ``teacher`` or ``student``.
        num_heads: Attention heads, which no weight tells; default: one for each 64 of width, as in
            ViT-Ti, S, B and L (4 in ToyDrive's ViT of width 128, whose heads have 32).
        kind: What builds the network; takes the arguments of ``VisionTransformer``.

    Returns:
        The network; ``forward`` gives ``(tokens,)``, (B, 1 + patches, d), the class token first.

    Raises:
        LayoutError: No ViT, or heads that do not divide its width.
    """
    state = to_backbone(content, network=network, source=source)
    size = dimensions(state)
    image, patch, width = size.pop('img_size'), size.pop('patch_size'), size['embed_dims']
    heads = num_heads or (4 if width == 128 else max(1, width // 64))
    if width % heads:
        raise LayoutError(f'{source}: {heads} heads do not divide the width {width}: --num-heads')
    model = kind(
        arch={**size, 'num_heads': heads},
        img_size=image,
        patch_size=patch,
        qkv_bias='layers.0.attn.qkv.bias' in state,
        out_type='raw',
    )
    model.load_state_dict(state)
    model.eval()  # which returns nothing: mmpretrain's train() does not
    return model.requires_grad_(False)
