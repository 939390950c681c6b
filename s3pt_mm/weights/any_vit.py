"""The ViT of any file as a network that makes tokens: plain, or one of timm's families."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3pt_mm.common.errors import DataError
from s3pt_mm.common.reading import read_checkpoint
from s3pt_mm.weights.backbone_file import SUFFIX
from s3pt_mm.weights.convert import unpack
from s3pt_mm.weights.frozen import RANDOM
from s3pt_mm.weights.layouts import LayoutError
from s3pt_mm.weights.plain_vit import PlainVisionTransformer, VisionTransformer, from_state
from s3pt_mm.weights.public import fill, weights_file
from s3pt_mm.weights.timm_vit import TimmViT

_PATCH = re.compile(r'(patch_embed\.proj|patch_embeddings(\.projection)?)\.weight$')
_BLOCK = re.compile(r'(?:blocks|layer|layers)\.(\d+)\.')
_REGISTERS = ('reg_token', 'register_tokens', 'storage_tokens')
_POSITIONS = ('pos_embed', 'position_embeddings')
_GATES = re.compile(r'\.mlp\.(w12|w1|weights_in|gate_up_proj|gate_proj|fc1_g)\.weight$')
_LAST = re.compile(r'\.mlp\.(fc2|w3|weights_out|down_proj)\.weight$')


def load_tokens(
    source: str | os.PathLike[str],
    *,
    network: str = 'teacher',
    num_heads: int | None = None,
    timm: str | None = None,
    kind: Callable[..., VisionTransformer] = PlainVisionTransformer,
) -> nn.Module:
    """A network with the weights of a file, in eval mode, without gradients.

    Args:
        source: Anything that ``--init`` or ``s3pt-convert`` reads: a file, an address, or a Hugging
            Face folder; the word ``random`` asks for random weights.
        network: ``teacher`` or ``student``, where the file has both.
        num_heads: Attention heads; default: what :func:`told_heads` finds, else one for each 64 of
            width (4 at width 128).
        timm: timm's name of the network, for files whose weights do not tell it: DINO-like, DINOv2
            (registers, SwiGLU) and DINOv3 ones do. ``random``: default ``vit_small_patch16_224``.
        kind: What builds plain ones; see :func:`~s3pt_mm.weights.plain_vit.from_state`.

    Returns:
        mmpretrain's ``VisionTransformer`` or :class:`TimmViT`; ``forward`` maps (n, 3, h, w) to
        ``(tokens,)``, (n, num_extra_tokens + patches, embed_dims), the class token first.

    Raises:
        FileNotFoundError, DataError: See :func:`~s3pt_mm.common.reading.read_checkpoint`.
        LayoutError: No ViT that is known, or heads that do not divide its width.
    """
    if source == RANDOM:
        torch.manual_seed(0)
        model = TimmViT(timm or 'vit_small_patch16_224')
    else:
        content = read_checkpoint(weights_file(source))
        heads = num_heads or told_heads(source)
        settings: dict[str, Any] | None = dict(name=timm) if timm else None
        if settings is None:
            state = unpack(content, network, str(source))
            settings = timm_settings(state, heads)
        if settings is None:
            return from_state(content, str(source), network=network, num_heads=heads, kind=kind)
        model = TimmViT(**settings)
        fill(model, content, str(source), network=network)
    if not model.num_extra_tokens:
        raise LayoutError(f'{source}: a ViT without a class token')
    model.eval()
    return model.requires_grad_(False)


def patch_size(model: Any) -> int:
    """Side of a patch of :func:`load_tokens`' network, pixels."""
    if isinstance(model, TimmViT):
        return model.patch_size[0]
    return model.patch_embed.projection.kernel_size[0]


def home_size(vit: Any) -> tuple[int, int]:
    """(height, width) of the images that the position embedding is made for, pixels."""
    if isinstance(vit, TimmViT):
        rows, columns = vit.model.patch_embed.grid_size
    else:
        rows, columns = vit.patch_resolution
    return rows * patch_size(vit), columns * patch_size(vit)


def told_heads(source: str | os.PathLike[str]) -> int | None:
    """Attention heads that stand beside the weights; None where nothing tells them.

    Looks into the JSON of ``*.backbone.safetensors``, also of the one beside a checkpoint, and
    into ``config.json`` of a Hugging Face folder.

    Raises:
        DataError: That text is no JSON.
    """
    path = Path(source).expanduser()
    try:
        if path.is_dir() or path.name in ('model.safetensors', 'pytorch_model.bin'):
            path = (path if path.is_dir() else path.parent) / 'config.json'
            return int(json.loads(path.read_text())['num_attention_heads'])
        if not path.name.endswith('.safetensors'):
            path = path.with_suffix(SUFFIX)
        if path.is_file():
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(path, 'pt') as file:
                    about = file.metadata() or {}
            except SafetensorError:  # the reader of weights says so, if they are asked for
                return None
            if 'architecture' in about:
                return int(json.loads(about['architecture'])['timm']['num_heads'])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(path, f'its description is damaged ({error})', 'Give --num-heads') from None
    except (OSError, KeyError):
        pass
    return None


def timm_settings(state: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any] | None:
    """Arguments of :class:`TimmViT` for weights of the DINOv2 and DINOv3 families.

    Args:
        state: Weights in timm's, their authors' or Hugging Face's names.
        num_heads: If known.

    Returns:
        None for a plain ViT, and for what is not recognised.
    """
    by_end = {name.rsplit('.', maxsplit=1)[-1]: tensor for name, tensor in state.items()}
    patch = next((t for name, t in state.items() if _PATCH.search(name)), None)
    hidden = next((t.shape[1] for name, t in state.items() if _LAST.search(name)), None)
    blocks = [int(found[1]) for name in state if (found := _BLOCK.search(name))]
    registers = next((by_end[name].shape[1] for name in _REGISTERS if name in by_end), 0)
    positions = next((by_end[name] for name in _POSITIONS if name in by_end), None)
    scaled = any(re.search(r'ls1|layer_scale1|gamma_1$', name) for name in state)
    if patch is None or hidden is None or not (scaled and blocks and 'cls_token' in by_end):
        return None
    width, side = patch.shape[0], patch.shape[-1]
    settings: dict[str, Any] = dict(patch_size=side, embed_dim=width, depth=max(blocks) + 1)
    settings['num_heads'] = num_heads or max(1, width // 64)
    gates = next((t for name, t in state.items() if _GATES.search(name)), None)
    first = next((t for n, t in state.items() if n.endswith('.mlp.fc1.weight')), None)
    gated = gates is not None or (first is not None and first.shape[0] != hidden)
    if positions is None:
        biased = any(re.search(r'\.(q_proj|query)\.bias$|\.qkv\.bias$|\.q_bias$', n) for n in state)
        name = 'vit_small_plus_patch16_dinov3' if gated else 'vit_small_patch16_dinov3'
        settings |= dict(name=name + '_qkvb' * biased, num_reg_tokens=registers)
        return settings | dict(mlp_ratio=(hidden + 0.5) / width)  # timm rounds down
    # timm counts both halves of a gated layer.
    settings['mlp_ratio'] = ((2 if gated else 1) * hidden + 0.5) / width
    settings['img_size'] = math.isqrt(positions.shape[1]) * side
    settings['name'] = (
        f'vit_{"giant" if gated else "small"}_patch14{"_reg4" * (registers > 0)}_dinov2'
    )
    return settings | (dict(reg_tokens=registers) if registers else {})
