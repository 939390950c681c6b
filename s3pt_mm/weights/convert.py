"""ViT weights from anywhere into mmpretrain's ``VisionTransformer``, and back out."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from s3pt_mm.common.files import write_text
from s3pt_mm.common.reading import read_checkpoint
from s3pt_mm.weights.files import write_weights
from s3pt_mm.weights.layouts import (
    LAYOUTS,
    LayoutError,
    find_layout,
    rename_from_ours,
    rename_to_ours,
)

#: Entries of a checkpoint under which libraries keep the weights.
CONTAINERS = ('state_dict', 'model', 'model_state_dict', 'params')
#: Wrappers that parallel training leaves in the names, and prefixes of a backbone in a larger
#: model.
_WRAPPERS = ('module.', '_orig_mod.')
_BACKBONES = ('backbone.', 'img_backbone.', 'encoder.backbone.')
#: Weights of a :class:`~s3pt_mm.common.conv_stem.ConvStem`; filters have no number there.
STEM = re.compile(r'patch_embed\.projection\.\d')


def _strip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in state.items() if name.startswith(prefix)}


def unpack(content: Mapping[str, Any], network: str, source: str) -> dict[str, Tensor]:
    """Unpack containers and prefixes down to the network's own names.

    DINO and CrIBo store ``student`` and ``teacher`` as entries; this package stores both under
    ``state_dict``, as prefixes ``student.backbone.`` and ``teacher.backbone.``.
    """
    if isinstance(content.get(network), Mapping):
        content = content[network]
    elif isinstance(content.get('teacher'), Mapping) or isinstance(content.get('student'), Mapping):
        raise LayoutError(f'{source}: holds no {network}, only {sorted(map(str, content))}')
    for entry in CONTAINERS:
        if isinstance(content.get(entry), Mapping):
            content = content[entry]
            break
    state = {str(name): t for name, t in content.items() if isinstance(t, Tensor)}
    if not state:
        raise LayoutError(f'{source}: no tensors among its entries {sorted(map(str, content))[:8]}')
    if any(name.startswith(('teacher.backbone.', 'student.backbone.')) for name in state):
        chosen = _strip(state, f'{network}.backbone.')
        if not chosen:
            raise LayoutError(f'{source}: holds no weights under {network}.backbone.')
        return chosen
    for prefix in (*_WRAPPERS, *_BACKBONES, *(w for v in LAYOUTS.values() for w in v.wrappers)):
        inner = _strip(state, prefix)
        # A wrapper holds everything; a backbone stands beside heads, which stay behind.
        if inner and (prefix not in _WRAPPERS or len(inner) == len(state)):
            state = inner
    return state


def _check_shapes(state: Mapping[str, Tensor], source: str) -> None:
    """Compare every shape with what width, patch and hidden width imply."""
    width, patch = state['cls_token'].shape[-1], state['patch_embed.projection.weight'].shape
    hidden = state['layers.0.ffn.layers.0.0.weight'].shape[0]
    tokens = state['pos_embed'].shape[1] if state['pos_embed'].ndim == 3 else 0
    by_end = {
        'cls_token': (1, 1, width),
        'pos_embed': (1, tokens, width),
        'projection.weight': (width, 3, patch[-1], patch[-1]),
        'projection.bias': (width,),
        'qkv.weight': (3 * width, width),
        'qkv.bias': (3 * width,),
        'proj.weight': (width, width),
        'proj.bias': (width,),
        'layers.0.0.weight': (hidden, width),
        'layers.0.0.bias': (hidden,),
        'ffn.layers.1.weight': (width, hidden),
        'ffn.layers.1.bias': (width,),
        'ln1.weight': (width,),
        'ln1.bias': (width,),
        'ln2.weight': (width,),
        'ln2.bias': (width,),
    }
    for name, tensor in state.items():
        wanted = next(shape for end, shape in by_end.items() if name.endswith(end))
        if tuple(tensor.shape) != wanted:
            raise LayoutError(f'{source}: {name} is {tuple(tensor.shape)} and should be {wanted}')


def to_backbone(
    content: Mapping[str, Any],
    *,
    network: str = 'teacher',
    layout: str = 'auto',
    source: str = 'checkpoint',
) -> dict[str, Tensor]:
    """Take the ViT out of a checkpoint, in mmpretrain's names.

    Args:
        content: what :func:`read_checkpoint` returned.
        network: ``teacher`` or ``student``, where the checkpoint has both.
        layout: key of :data:`LAYOUTS`, or ``auto``; ``dino`` and ``cribo`` mean timm's names.
        source: file name for messages.

    Returns:
        Weights of ``mmpretrain.VisionTransformer``.

    Raises:
        LayoutError: no such network, names or shapes that do not fit, or a stem of convolutions.
    """
    state = unpack(content, network, source)
    if any(map(STEM.match, state)):
        raise LayoutError(
            f'{source}: patches from a stem of convolutions, for which no other library has a '
            'place; s3pt-embed, s3pt-look and s3pt-export --to onnx or torch-export read it'
        )
    layout = {'dino': 'timm', 'cribo': 'timm'}.get(layout, layout)
    try:
        backbone = rename_to_ours(state, find_layout(state) if layout == 'auto' else layout)
    except LayoutError as error:
        raise LayoutError(f'{source}: {error}') from None
    _check_shapes(backbone, source)
    return backbone


def from_backbone(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Weights of ``mmpretrain.VisionTransformer`` in another library's names."""
    return rename_from_ours(state, layout)


def dimensions(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes of the network: width, depth, hidden width, patch and image size in pixels."""
    patch = state['patch_embed.projection.weight'].shape[-1]
    return {
        'embed_dims': state['cls_token'].shape[-1],
        'num_layers': LAYOUTS['s3pt_mm'].depth(state),
        'feedforward_channels': state['layers.0.ffn.layers.0.0.weight'].shape[0],
        'patch_size': patch,
        'img_size': math.isqrt(state['pos_embed'].shape[1] - 1) * patch,
    }


def hugging_face_config(state: Mapping[str, Tensor], num_heads: int) -> dict[str, Any]:
    """Content of ``config.json`` for ``ViTModel``.

    mmpretrain's layer norms add 1e-6 to the variance; transformers' default is 1e-12.
    """
    size = dimensions(state)
    return {
        'architectures': ['ViTModel'],
        'model_type': 'vit',
        'hidden_size': size['embed_dims'],
        'num_hidden_layers': size['num_layers'],
        'num_attention_heads': num_heads,
        'intermediate_size': size['feedforward_channels'],
        'image_size': size['img_size'],
        'patch_size': size['patch_size'],
        'hidden_act': 'gelu',
        'layer_norm_eps': 1e-6,
        'qkv_bias': 'layers.0.attn.qkv.bias' in state,
    }


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    layout_in: str = 'auto',
    layout_out: str = 's3pt_mm',
    network: str = 'teacher',
    num_heads: int | None = None,
) -> dict[str, int]:
    """Convert a file of weights.

    Args:
        source: ``.safetensors``, or anything that ``torch.save`` wrote.
        target: a ``.safetensors`` or ``.pth`` file; with ``huggingface`` also a folder, which
            then holds ``model.safetensors`` and ``config.json`` for ``from_pretrained``.
        layout_in: see :func:`to_backbone`.
        layout_out: key of :data:`LAYOUTS`.
        network: ``teacher`` or ``student``.
        num_heads: attention heads, for ``config.json``. No weight tells them; the default is one
            for each 64 of width, as in ViT-Ti, S, B and L.

    Returns:
        The network's sizes (:func:`dimensions`).

    Raises:
        LayoutError: see :func:`to_backbone`, or a target of an unknown kind.
    """
    source, target = Path(source), Path(target)
    backbone = to_backbone(
        read_checkpoint(source), network=network, layout=layout_in, source=str(source)
    )
    size = dimensions(backbone)
    heads = num_heads or max(1, size['embed_dims'] // 64)
    if size['embed_dims'] % heads:
        raise LayoutError(
            f'{heads} heads do not divide the width {size["embed_dims"]}: set num_heads'
        )
    metadata = {'source': source.name, 'layout': layout_out, **{k: str(v) for k, v in size.items()}}
    weights = from_backbone(backbone, layout_out)
    if target.suffix in ('.safetensors', '.pth'):
        write_weights(weights, target, metadata)
    elif target.suffix or layout_out != 'huggingface':
        raise LayoutError(
            f'{target}: name a .safetensors or .pth file, or a folder with --to huggingface'
        )
    else:
        write_weights(weights, target / 'model.safetensors', metadata)
        text = json.dumps(hugging_face_config(backbone, heads), indent=2)
        write_text(target / 'config.json', text + '\n')
    return size
