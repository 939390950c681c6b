"""timm's DINOv2 and DINOv3 networks as transformers stores its own: weights and configuration."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from s3pt_mm.weights.layouts import LayoutError
from s3pt_mm.weights.timm_vit import TimmViT

_BLOCK = (
    (r'^cls_token$', 'embeddings.cls_token'),
    (r'^reg_token$', 'embeddings.register_tokens'),
    (r'^pos_embed$', 'embeddings.position_embeddings'),
    (r'\.(?:ls|gamma_?)(\d)(?:\.gamma)?$', r'.layer_scale\1.lambda1'),
)
_DINOV2 = (
    *_BLOCK,
    (r'^patch_embed\.proj', 'embeddings.patch_embeddings.projection'),
    (r'^norm\.', 'layernorm.'),
    (r'^blocks\.', 'encoder.layer.'),
    (r'\.attn\.([qkv])\.', r'.attention.attention.\1.'),
    (r'\.attention\.q\.', '.attention.query.'),
    (r'\.attention\.k\.', '.attention.key.'),
    (r'\.attention\.v\.', '.attention.value.'),
    (r'\.attn\.proj\.', '.attention.output.dense.'),
)
_GATED = ((r'\.mlp\.fc1\.', '.mlp.weights_in.'), (r'\.mlp\.fc2\.', '.mlp.weights_out.'))
_DINOV3 = (
    *_BLOCK,
    (r'^patch_embed\.proj', 'embeddings.patch_embeddings'),
    (r'^blocks\.', 'layer.'),
    (r'\.attn\.([qkv])\.', r'.attention.\1_proj.'),
    (r'\.attn\.proj\.', '.attention.o_proj.'),
    (r'\.mlp\.fc1_g\.', '.mlp.gate_proj.'),
    (r'\.mlp\.(fc1|fc1_x)\.', '.mlp.up_proj.'),
    (r'\.mlp\.fc2\.', '.mlp.down_proj.'),
)


def to_hugging_face(vit: TimmViT, source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and ``config.json`` of transformers' ``Dinov2Model``, ``Dinov2WithRegistersModel``
    or ``DINOv3ViTModel``, as on disk.

    Args:
        vit: The network.
        source: Its name, for messages.

    Raises:
        LayoutError: transformers has no such network.
    """
    model = vit.model
    state = _split({name: tensor.detach() for name, tensor in model.state_dict().items()})
    rotary = getattr(model, 'rope', None) is not None
    places = {'pos_embed'} & set(state)
    if rotary == bool(places) or not any(re.search(r'ls1|gamma_1', name) for name in state):
        raise LayoutError(
            f'{source}: of networks of timm only DINOv2 and DINOv3 have a twin in transformers; '
            'choose --to timm'
        )
    width, registers = vit.embed_dims, vit.num_extra_tokens - 1
    mask = torch.zeros(1, width)
    hidden = next(t.shape[1] for name, t in state.items() if name.endswith('mlp.fc2.weight'))
    first = next(t for name, t in state.items() if re.search(r'mlp\.fc1\w*\.weight$', name))
    config: dict[str, Any] = dict(
        hidden_size=width,
        num_hidden_layers=len(model.blocks),
        num_attention_heads=model.blocks[0].attn.num_heads,
        patch_size=vit.patch_size[0],
        image_size=vit.patch_size[0] * model.patch_embed.grid_size[0],
        layer_norm_eps=model.norm.eps,
    )
    if rotary:
        gated = any('fc1_g' in name for name in state)
        config |= dict(architectures=['DINOv3ViTModel'], model_type='dinov3_vit')
        config |= dict(intermediate_size=hidden, num_register_tokens=registers)
        config |= dict(use_gated_mlp=gated, hidden_act='silu' if gated else 'gelu')
        biased = 'blocks.0.attn.q.bias' in state
        config |= dict(query_bias=biased, value_bias=biased, key_bias=False)
        if not registers:
            state['reg_token'] = torch.zeros(1, 0, width)
        return {**_renamed(state, _DINOV3), 'embeddings.mask_token': mask[None]}, config
    gated = first.shape[0] != hidden
    kind, name = 'Dinov2Model', 'dinov2'
    if registers:
        kind, name = 'Dinov2WithRegistersModel', 'dinov2_with_registers'
    config |= dict(architectures=[kind], model_type=name, use_swiglu_ffn=gated)
    # Of a gate, transformers rounds two thirds up to a multiple of 8.
    sizes = {n: (int(n * width * 2 / 3) + 7) // 8 * 8 if gated else n * width for n in range(1, 33)}
    config['mlp_ratio'] = next((n for n, size in sizes.items() if size == hidden), None)
    if config['mlp_ratio'] is None:
        raise LayoutError(
            f'{source}: {hidden} hidden numbers at width {width} are none that transformers makes; '
            'choose --to timm'
        )
    if registers:
        config['num_register_tokens'] = registers
        if getattr(model, 'no_embed_class', False):  # the class token has its place in it
            nowhere = torch.zeros(1, 1, width)
            state['pos_embed'] = torch.cat([nowhere, state['pos_embed']], dim=1)
    names = (*_DINOV2, *(_GATED if gated else ()))
    return {**_renamed(state, names), 'embeddings.mask_token': mask}, config


def _split(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value apart, as ``blocks.0.attn.q.weight``."""
    apart: dict[str, Tensor] = {}
    for name, tensor in state.items():
        head, dot, leaf = name.rpartition('.qkv.')
        if dot:
            parts = tensor.chunk(3)
            apart |= {f'{head}.{one}.{leaf}': t for one, t in zip('qkv', parts, strict=True)}
        else:
            apart[re.sub(r'\.([qkv])_bias$', r'.\1.bias', name)] = tensor
    return apart


def _renamed(state: dict[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
