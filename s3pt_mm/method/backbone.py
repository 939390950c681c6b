"""mmpretrain's ViT, started and resized as the public code of DINO and CrIBo does it."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from s3pt_mm.common.conv_stem import ConvStem, StemMixin
from s3pt_mm.method import encoder_layers

# The public code's choices, for ``fidelity='reference'``.
REFERENCE = dict(type='S3PTVisionTransformer', init='reference', pos_embed_resize='scale_factor')


@MODELS.register_module(name='S3PTVisionTransformer')
class PretrainVisionTransformer(StemMixin, VisionTransformer):
    """mmpretrain's ``VisionTransformer`` as a student starts: same arguments, same weight names.

    Args:
        init: 'reference': linear weights, class token and position embedding are truncated normals
            of deviation 0.02, biases are 0, norms 1 and 0; patch filters keep torch's default, as
            in the public code. 'mmpretrain' keeps that library's (class token exactly 0).
        pos_embed_resize: How the position embedding follows crops of another size: 'size', as
            mmpretrain and most libraries do, or 'scale_factor', DINO's ``(n + 0.1) / n_0``, which
            samples at slightly other places (10 to 28 % of the embedding at 6 x 6 of 14 x 14).
        **kwargs: Of ``VisionTransformer``, and ``stem`` of
            :class:`~s3pt_mm.common.conv_stem.StemMixin`.

    Raises:
        ValueError: For another ``init``, ``pos_embed_resize`` or ``stem``.
    """

    def __init__(
        self,
        *,
        init: str = 'reference',
        pos_embed_resize: str = 'scale_factor',
        **kwargs: Any,
    ) -> None:
        if init not in ('reference', 'mmpretrain'):
            raise ValueError(f"init must be 'reference' or 'mmpretrain', got {init!r}")
        if pos_embed_resize not in ('scale_factor', 'size'):
            raise ValueError(
                f"pos_embed_resize must be 'scale_factor' or 'size', got {pos_embed_resize!r}"
            )
        super().__init__(**kwargs)
        self.init, self.pos_embed_resize = init, pos_embed_resize
        self.plain = all(encoder_layers.is_plain(layer) for layer in self.layers)
        self.plain &= tuple(self.out_indices) == (len(self.layers) - 1,)
        keep = encoder_layers.keep_chances(self.layers) if self.plain else None
        self.register_buffer('keep', keep, persistent=False)

    def init_weights(self) -> None:
        """Start the weights, or load those of ``init_cfg``."""
        super().init_weights()
        loaded = isinstance(self.init_cfg, dict) and self.init_cfg['type'] == 'Pretrained'
        if self.init == 'mmpretrain' or loaded:
            return
        drawn = [p for p in (self.cls_token, self.pos_embed) if p is not None]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                drawn.append(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for parameter in drawn:
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(n, 3, h, w) -> outputs of the layers asked for; see ``VisionTransformer``."""
        projection = self.patch_embed.projection
        apart = projection.stride == projection.kernel_size and not any(projection.padding)
        if not apart or self.patch_embed.norm is not None:
            return super().forward(images)
        grid = tuple(
            pixels // patch
            for pixels, patch in zip(images.shape[2:], projection.kernel_size, strict=True)
        )
        if isinstance(projection, ConvStem):
            tokens = projection(images).flatten(2).transpose(1, 2)
        else:
            tokens = embed_patches(images, projection)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        place = self.pos_embed
        if grid != tuple(self.patch_resolution):
            place = resize_position_embedding(
                place, self.patch_resolution, grid, self.num_extra_tokens, self.pos_embed_resize
            )
        tokens = self.pre_norm(self.drop_after_pos(tokens + place))
        if self.plain and not encoder_layers.hooked(self.layers):
            keep = self.keep if self.training and len(self.keep) else None
            tokens = encoder_layers.run_layers(self.layers, tokens, keep)
            tokens = self.ln1(tokens) if self.final_norm else tokens
            return (self._format_output(tokens, grid),)
        outputs = []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index == len(self.layers) - 1 and self.final_norm:
                tokens = self.ln1(tokens)
            if index in self.out_indices:
                outputs.append(self._format_output(tokens, grid))
        return tuple(outputs)


def embed_patches(images: Tensor, projection: nn.Conv2d) -> Tensor:
    """(n, 3, h, w) -> (n, N, d): a convolution whose patches do not overlap, as one product.

    cuDNN has no tensor-core kernel for three channels: on an H100 this is 20 times as fast.
    """
    rows, columns = projection.kernel_size
    height, width = images.shape[2] // rows * rows, images.shape[3] // columns * columns
    patches = images[..., :height, :width].unflatten(3, (-1, columns)).unflatten(2, (-1, rows))
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return F.linear(patches, projection.weight.flatten(1), projection.bias)


def resize_position_embedding(
    embedding: Tensor,
    source: tuple[int, int],
    target: tuple[int, int],
    num_extra_tokens: int = 1,
    by: str = 'scale_factor',
) -> Tensor:
    """Resize a position embedding bicubically.

    The resizing is linear, so it is a product with the resized unit grids: its gradient needs no
    atomic sums, which ``deterministic=True`` refuses on CUDA.

    Args:
        embedding: (1, extra + H_0 W_0, d).
        source: H_0, W_0.
        target: H, W.
        num_extra_tokens: Leading tokens without place, which pass unchanged.
        by: 'size' samples as most libraries do; 'scale_factor' as DINO's public code, by
            ``(n + 0.1) / n_0``. The tenth was meant against rounding; it also moves every
            sample's place.

    Returns:
        (1, extra + H W, d).
    """
    extra, grid = embedding[:, :num_extra_tokens], embedding[:, num_extra_tokens:]
    real = torch.float64 if embedding.dtype == torch.float64 else torch.float32
    places = source[0] * source[1]
    units = torch.eye(places, dtype=real, device=embedding.device).view(1, places, *source)
    options: dict[str, Any]
    if by == 'size':
        options = dict(size=tuple(target))
    else:
        factors = [(new + 0.1) / old for new, old in zip(target, source, strict=True)]
        options = dict(scale_factor=factors)
    weights = F.interpolate(units, **options, mode='bicubic', align_corners=False)
    with torch.autocast(embedding.device.type, enabled=False):
        resized = weights.flatten(2).transpose(1, 2) @ grid.to(real)
    return torch.cat([extra, resized.to(embedding.dtype)], dim=1)
