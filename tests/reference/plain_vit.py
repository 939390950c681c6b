"""A Vision Transformer as DINO's public code defines it, under mmpretrain's weight names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.ffn = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        # mmpretrain calls them ffn.layers.0.0 and ffn.layers.1.
        self.ffn.layers = nn.ModuleList(
            [nn.ModuleList([nn.Linear(width, hidden)]), nn.Linear(hidden, width)]
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.attn.qkv(self.ln1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        attention = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + self.attn.proj((attention @ v).transpose(1, 2).flatten(2))
        return x + self.ffn.layers[1](F.gelu(self.ffn.layers[0][0](self.ln2(x))))


class PlainViT(nn.Module):
    """Tokens (n, 1 + N, d) after the final norm.

    ``resize`` is 'scale_factor' (the public code) or 'size' (mmpretrain).
    """

    def __init__(self, arch: dict, img_size: int, patch_size: int, resize: str) -> None:
        super().__init__()
        width, self.side, self.resize = arch['embed_dims'], img_size // patch_size, resize
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2 + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.projection = nn.Conv2d(3, width, patch_size, patch_size)
        self.layers = nn.ModuleList(
            _Layer(width, arch['num_heads'], arch['feedforward_channels'])
            for _ in range(arch['num_layers'])
        )
        self.ln1 = nn.LayerNorm(width, eps=1e-6)

    def place(self, rows: int) -> Tensor:
        if rows == self.side:
            return self.pos_embed
        image = self.pos_embed[:, 1:].unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        size = dict(size=(rows, rows)) if self.resize == 'size' else {}
        factor = {} if size else dict(scale_factor=((rows + 0.1) / self.side,) * 2)
        # mmpretrain resizes in float32 whatever the weights are.
        image = image.float() if size else image
        moved = F.interpolate(image, mode='bicubic', **size, **factor).to(self.pos_embed)
        return torch.cat([self.pos_embed[:, :1], moved.flatten(2).transpose(1, 2)], 1)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed.projection(images)
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.place(patches.shape[2])
        for layer in self.layers:
            x = layer(x)
        return self.ln1(x)
