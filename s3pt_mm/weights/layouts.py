"""How other libraries name the weights of a plain ViT, beside mmpretrain's names.

A layout is a table of name pairs; ``{i}`` counts the blocks. Where one library keeps query, key and
value apart, the right side of a pair has three names and the tensors are joined along axis 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


class LayoutError(ValueError):
    """Names or shapes do not fit the layout; the message lists them."""


def _modules(pairs: Iterable[tuple[str, str | tuple[str, ...]]]) -> tuple:
    """Name pairs of modules -> pairs of their weights and biases."""
    return tuple(
        (f'{ours}.{leaf}', tuple(f'{name}.{leaf}' for name in _names(theirs)))
        for ours, theirs in pairs
        for leaf in ('weight', 'bias')
    )


def _names(theirs: str | tuple[str, ...]) -> tuple[str, ...]:
    return (theirs,) if isinstance(theirs, str) else theirs


@dataclass(frozen=True)
class Layout:
    """The names of one library.

    Attributes:
        marker: pattern of a name that only this layout has; its group counts the blocks.
        pairs: (mmpretrain's name, the library's names).
        ignored: prefixes of weights that a backbone does not have (heads, poolers).
        aliases: (pattern, replacement) of names of older releases.
        wrappers: prefixes that the library's own models put before all names.
    """

    marker: str
    pairs: tuple[tuple[str, tuple[str, ...]], ...]
    ignored: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = field(default=())
    wrappers: tuple[str, ...] = ()

    def depth(self, names: Iterable[str]) -> int:
        """Number of blocks that the names speak of; 0 if they are of another layout."""
        found = [int(match[1]) for name in names if (match := re.match(self.marker, name))]
        return max(found, default=-1) + 1

    def expand(self, depth: int) -> list[tuple[str, tuple[str, ...]]]:
        """All name pairs of a network with ``depth`` blocks."""
        table = []
        for ours, theirs in self.pairs:
            for i in range(depth) if '{i}' in ours else (None,):
                table.append((ours.format(i=i), tuple(name.format(i=i) for name in theirs)))
        return table


_BLOCK = (('ln1', 'norm1'), ('attn.qkv', 'attn.qkv'), ('attn.proj', 'attn.proj'), ('ln2', 'norm2'))


def _tensors(cls: str, position: str) -> tuple:
    return (('cls_token', (cls,)), ('pos_embed', (position,)))


def _hugging_face(layer: str, query: tuple[str, ...], out: str, fc1: str, fc2: str) -> tuple:
    return _tensors('embeddings.cls_token', 'embeddings.position_embeddings') + _modules(
        (
            ('patch_embed.projection', 'embeddings.patch_embeddings.projection'),
            ('layers.{i}.ln1', f'{layer}.layernorm_before'),
            ('layers.{i}.attn.qkv', tuple(f'{layer}.{name}' for name in query)),
            ('layers.{i}.attn.proj', f'{layer}.{out}'),
            ('layers.{i}.ln2', f'{layer}.layernorm_after'),
            ('layers.{i}.ffn.layers.0.0', f'{layer}.{fc1}'),
            ('layers.{i}.ffn.layers.1', f'{layer}.{fc2}'),
            ('ln1', 'layernorm'),
        )
    )


_TORCHVISION = 'encoder.layers.encoder_layer_{i}'
_HEADS = (
    *('head.', 'heads.', 'classifier.', 'pooler.', 'fc.', 'embeddings.mask_token'),
    *('masked_embed', 'mask_token', 'decoder_', 'decoder.'),  # iBOT's; MAE's whole files
)

LAYOUTS: dict[str, Layout] = {
    # mmpretrain's VisionTransformer: this package's own names.
    's3pt_mm': Layout(
        marker=r'layers\.(\d+)\.ln1\.weight$',
        pairs=_tensors('cls_token', 'pos_embed')
        + _modules(
            (name, name)
            for name in (
                'patch_embed.projection',
                *(
                    'layers.{i}.' + part
                    for part in ('ln1', 'attn.qkv', 'attn.proj', 'ln2', 'ffn.layers.0.0')
                ),
                'layers.{i}.ffn.layers.1',
                'ln1',
            )
        ),
        ignored=_HEADS,
    ),
    # timm's VisionTransformer; DINO's and CrIBo's networks have the same names.
    'timm': Layout(
        marker=r'blocks\.(\d+)\.norm1\.weight$',
        pairs=_tensors('cls_token', 'pos_embed')
        + _modules(
            (
                ('patch_embed.projection', 'patch_embed.proj'),
                *((f'layers.{{i}}.{ours}', f'blocks.{{i}}.{theirs}') for ours, theirs in _BLOCK),
                ('layers.{i}.ffn.layers.0.0', 'blocks.{i}.mlp.fc1'),
                ('layers.{i}.ffn.layers.1', 'blocks.{i}.mlp.fc2'),
                ('ln1', 'norm'),
            )
        ),
        ignored=_HEADS,
    ),
    # Hugging Face ViTModel as stored on disk (transformers 4 and 5).
    'huggingface': Layout(
        marker=r'encoder\.layer\.(\d+)\.layernorm_before\.weight$',
        pairs=_hugging_face(
            'encoder.layer.{i}',
            tuple(f'attention.attention.{name}' for name in ('query', 'key', 'value')),
            'attention.output.dense',
            'intermediate.dense',
            'output.dense',
        ),
        ignored=_HEADS,
        wrappers=('vit.',),
    ),
    # The names of a live ViTModel in transformers 5.
    'huggingface5': Layout(
        marker=r'layers\.(\d+)\.layernorm_before\.weight$',
        pairs=_hugging_face(
            'layers.{i}',
            tuple(f'attention.{name}_proj' for name in 'qkv'),
            'attention.o_proj',
            'mlp.fc1',
            'mlp.fc2',
        ),
        ignored=_HEADS,
        wrappers=('vit.',),
    ),
    'torchvision': Layout(
        marker=r'encoder\.layers\.encoder_layer_(\d+)\.ln_1\.weight$',
        pairs=_tensors('class_token', 'encoder.pos_embedding')
        + tuple(
            (
                f'layers.{{i}}.attn.qkv.{leaf}',
                (f'{_TORCHVISION}.self_attention.in_proj_{leaf}',),
            )
            for leaf in ('weight', 'bias')
        )
        + _modules(
            (
                ('patch_embed.projection', 'conv_proj'),
                ('layers.{i}.ln1', f'{_TORCHVISION}.ln_1'),
                ('layers.{i}.attn.proj', f'{_TORCHVISION}.self_attention.out_proj'),
                ('layers.{i}.ln2', f'{_TORCHVISION}.ln_2'),
                ('layers.{i}.ffn.layers.0.0', f'{_TORCHVISION}.mlp.0'),
                ('layers.{i}.ffn.layers.1', f'{_TORCHVISION}.mlp.3'),
                ('ln1', 'encoder.ln'),
            )
        ),
        ignored=_HEADS,
        # The published files are older than torchvision's present names.
        aliases=((r'\.mlp\.linear_1\.', '.mlp.0.'), (r'\.mlp\.linear_2\.', '.mlp.3.')),
    ),
}


def find_layout(names: Iterable[str]) -> str:
    """Name of the layout that the weights are in.

    Raises:
        LayoutError: none of them; the message shows some names.
    """
    names = list(names)
    for name, layout in LAYOUTS.items():
        if layout.depth(names):
            return name
    raise LayoutError(
        f'no ViT in a known layout ({", ".join(LAYOUTS)}) among {len(names)} names, '
        f'which begin with {", ".join(sorted(names)[:5])}'
    )


def rename_to_ours(state: Mapping[str, Tensor], layout_name: str) -> dict[str, Tensor]:
    """Bring weights into mmpretrain's names.

    Args:
        state: tensors by name.
        layout_name: key of :data:`LAYOUTS`.

    Returns:
        The backbone's weights; query, key and value joined.

    Raises:
        LayoutError: a weight is missing, or one is left that is neither known nor a head's.
    """
    layout = LAYOUTS[layout_name]
    rest = dict(state)
    for pattern, replacement in layout.aliases:
        rest = {re.sub(pattern, replacement, name): tensor for name, tensor in rest.items()}
    depth = layout.depth(rest)
    if not depth:
        raise LayoutError(
            f'no weights in the layout of {layout_name}: none is like {layout.marker}'
        )
    result, missing = {}, []
    for ours, theirs in layout.expand(depth):
        absent = [name for name in theirs if name not in rest]
        if not absent:
            parts = [rest.pop(name) for name in theirs]
            result[ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
        elif len(absent) < len(theirs) or not ours.endswith('attn.qkv.bias'):
            missing += absent  # only the bias of q, k, v is optional, and only as a whole
    unknown = [name for name in rest if not name.startswith(layout.ignored)]
    if missing or unknown:
        raise LayoutError(
            f'not a plain ViT in the layout of {layout_name}: missing {missing[:8] or "nothing"}, '
            f'unknown {unknown[:8] or "nothing"}'
        )
    return result


def rename_from_ours(state: Mapping[str, Tensor], layout_name: str) -> dict[str, Tensor]:
    """Bring mmpretrain's weights into another layout; the inverse of :func:`rename_to_ours`."""
    depth = LAYOUTS['s3pt_mm'].depth(state)
    result: dict[str, Tensor] = {}
    for ours, theirs in LAYOUTS[layout_name].expand(depth):
        if ours in state:
            parts = state[ours].chunk(len(theirs)) if len(theirs) > 1 else (state[ours],)
            result.update(zip(theirs, parts, strict=True))
    return result
