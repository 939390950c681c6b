"""``--init``: public weights of any container and naming, in the names of a config's backbone."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from s3pt_mm.common.models import differences, shortened
from s3pt_mm.common.reading import read_checkpoint
from s3pt_mm.weights.convert import to_backbone, unpack
from s3pt_mm.weights.files import write_weights
from s3pt_mm.weights.layouts import LayoutError
from s3pt_mm.weights.timm_vit import TimmViT

#: Parts of public files that are no backbone: heads, decoders, masks.
_NO_BACKBONE = re.compile(
    r'(head|heads|head_dist|fc|fc_norm|classifier|pooler|decoder\w*|mask_token|contrastive_head'
    r'|projectors|dino_head|ibot_head)(\.|$)'
)
_HUGGING_FACE = (
    (r'^\w+\.(?=embeddings\.|encoder\.|layer\.|layernorm\.)', ''),  # of a model with a head
    (r'^embeddings\.(cls_token|mask_token)$', r'\1'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.patch_embeddings\.(projection\.)?', 'patch_embed.proj.'),
    (r'^(encoder\.)?layer\.(\d+)\.', r'blocks.\2.'),
    (r'^layernorm\.', 'norm.'),
    (r'\.layer_scale(\d)\.lambda1$', r'.ls\1.gamma'),
    (r'\.attention\.(attention|output)\.', '.attention.'),
    (r'\.attention\.(query|q_proj)\.', '.attn.q.'),
    (r'\.attention\.(key|k_proj)\.', '.attn.k.'),
    (r'\.attention\.(value|v_proj)\.', '.attn.v.'),
    (r'\.attention\.(dense|o_proj)\.', '.attn.proj.'),
    (r'\.mlp\.(weights_in|gate_up_proj)\.', '.mlp.w12.'),
    (r'\.mlp\.(weights_out)\.', '.mlp.w3.'),
    (r'\.mlp\.up_proj\.', '.mlp.fc1.'),
    (r'\.mlp\.down_proj\.', '.mlp.fc2.'),
)
_GATED = (
    (r'\.mlp\.gate_proj\.', '.mlp.w1.'),
    (r'\.mlp\.up_proj\.', '.mlp.w2.'),
    (r'\.mlp\.down_proj\.', '.mlp.w3.'),
)


def initial_weights(
    backbone: Mapping[str, Any],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    network: str = 'teacher',
) -> Path:
    """Write public weights in the names of a config's backbone, complete or not at all.

    Args:
        backbone: its part of the config; its ``init_cfg`` does not count.
        source: DINO, DINOv2, DINOv3, iBOT, CrIBo, MAE, timm, Hugging Face, torchvision or this
            package's: a file, an address, or Hugging Face's folder.
        target: the file for ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        network: of a file that holds both.

    Returns:
        ``target``.

    Raises:
        LayoutError: a weight is missing, unknown or of another shape; nothing is written.
        FileNotFoundError, DataError: see :func:`~s3pt_mm.common.reading.read_checkpoint`.
    """
    settings = {key: value for key, value in dict(backbone).items() if key != 'init_cfg'}
    kind = str(settings['type']).rsplit('.', maxsplit=1)[-1].removeprefix('Frozen')
    for probing in ('inference_dtype', 'freeze'):
        settings.pop(probing, None)
    module = MODELS.build({**settings, 'type': kind})
    fill(module, read_checkpoint(weights_file(source)), str(source), network=network)
    write_weights(module.state_dict(), target, {'source': str(source)})
    return Path(target)


def fill(
    module: nn.Module, content: Mapping[str, Any], source: str, *, network: str = 'teacher'
) -> None:
    """Fill a backbone with public weights; every one of its weights, or an error.

    Args:
        module: the backbone.
        content: what ``read_checkpoint`` returned.
        source: its name, for messages.
        network: of a file that holds both.

    Raises:
        LayoutError: see :func:`initial_weights`.
    """
    if isinstance(module, TimmViT):
        state = _for_timm(module, unpack(content, network, source), source)
    else:
        state = to_backbone(content, network=network, source=source)
    if found := differences(module.state_dict(), state):
        raise LayoutError(
            f'{source} does not fit the backbone: {shortened(found)}. Choose the backbone that the '
            "weights are of, e.g. type='TimmViT', name='vit_base_patch14_reg4_dinov2'"
        )
    module.load_state_dict(state)
    print_log(f'{len(state)} weights of {type(module).__name__} from {source}', 'current')


def start_from(cfg: Any, source: str) -> None:
    """``--init``: make the backbone of a config start from public weights.

    Args:
        cfg: a config of mmengine with ``model`` and ``work_dir``; the model's ``init_cfg`` is set.
        source: see :func:`initial_weights`.
    """
    part = 'img_backbone' if 'img_backbone' in cfg.model else 'backbone'
    path = initial_weights(cfg.model[part], source, Path(cfg.work_dir) / 'init.pth')
    cfg.model[part].init_cfg = dict(type='Pretrained', checkpoint=str(path))


def weights_file(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The file of weights in a Hugging Face folder; anything else as it is."""
    if '://' in str(source) or not Path(source).is_dir():
        return source
    for name in ('model.safetensors', 'pytorch_model.bin'):
        if (Path(source) / name).is_file():
            return Path(source) / name
    raise FileNotFoundError(f'{source}: no model.safetensors and no pytorch_model.bin in it')


def _for_timm(module: TimmViT, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights in any naming -> in :class:`TimmViT`'s, through timm's own converters."""
    if all(name.startswith('model.') and 'embeddings' not in name for name in state):
        return state  # this package's
    vit = module.model
    rotary = getattr(vit, 'rope', None) is not None
    state = _from_hugging_face(state, rotary) if _is_hugging_face(state) else state
    for name in ('patch_embed.proj.weight', 'model.patch_embed.proj.weight'):
        if name in state and state[name].shape[-2:] != vit.patch_embed.proj.weight.shape[-2:]:
            raise LayoutError(  # timm would resample the filters without a word
                f'{source} has patches of {tuple(state[name].shape[-2:])} pixels, the backbone of '
                f'{tuple(module.patch_size)}: set patch_size, or choose another model by name'
            )
    convert = sys.modules[type(vit).__module__].checkpoint_filter_fn
    state = convert(dict(state), vit)
    return {f'model.{name}': t for name, t in state.items() if not _NO_BACKBONE.match(name)}


def _is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    return any('embeddings.cls_token' in name for name in state)


def _from_hugging_face(state: Mapping[str, Tensor], rotary: bool) -> dict[str, Tensor]:
    """Names of transformers' ViT, DINOv2 and DINOv3 models -> of their authors' files."""
    named = {}
    gated = rotary and any('.mlp.gate_proj.' in name for name in state)
    for name, tensor in state.items():
        for pattern, replacement in (*(_GATED if gated else ()), *_HUGGING_FACE):
            name = re.sub(pattern, replacement, name)
        registers = 'storage_tokens' if rotary else 'register_tokens'
        named[name.replace('embeddings.register_tokens', registers)] = tensor
    joined = {}
    for name, tensor in named.items():
        found = re.fullmatch(r'(.*\.attn\.)([qkv])\.(\w+)', name)
        if found is None:
            joined[name] = tensor
        elif found[2] == 'q':
            head, _, leaf = found.groups()
            width = torch.zeros_like(tensor)  # DINOv3 has no bias of the keys
            joined[f'{head}qkv.{leaf}'] = torch.cat(
                [tensor, named.get(f'{head}k.{leaf}', width), named[f'{head}v.{leaf}']]
            )
    return {'mask_token': torch.zeros(1), **joined} if not rotary else joined
