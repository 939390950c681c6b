"""mmpretrain's ViT, started and resized as the public code of DINO and CrIBo does it."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

# The public code's choices, for ``fidelity='reference'``.
REFERENCE = dict(type='S3PTVisionTransformer', init='reference', pos_embed_resize='scale_factor')


@MODELS.register_module(name='S3PTVisionTransformer')
class PretrainVisionTransformer(VisionTransformer):
    """mmpretrain's ``VisionTransformer`` as a student starts: same arguments, same weight names.

    Args:
        init: 'reference': linear weights, class token and position embedding are truncated normals
            of deviation 0.02, biases are 0, norms 1 and 0; patch filters keep torch's default, as
            in the public code. 'mmpretrain' keeps that library's (class token exactly 0).
        pos_embed_resize: How the position embedding follows crops of another size: 'size', as
            mmpretrain and most libraries do, or 'scale_factor', DINO's ``(n + 0.1) / n_0``, which
            samples at slightly other places (10 to 28 % of the embedding at 6 x 6 of 14 x 14).
        **kwargs: Of ``VisionTransformer``.

    Raises:
        ValueError: For another ``init`` or ``pos_embed_resize``.
    """

    def __init__(
        self, *, init: str = 'reference', pos_embed_resize: str = 'scale_factor', **kwargs: Any
    ) -> None:
        if init not in ('reference', 'mmpretrain'):
            raise ValueError(f"init must be 'reference' or 'mmpretrain', got {init!r}")
        if pos_embed_resize not in ('scale_factor', 'size'):
            raise ValueError(
                f"pos_embed_resize must be 'scale_factor' or 'size', got {pos_embed_resize!r}"
            )
        super().__init__(**kwargs)
        self.init, self.pos_embed_resize = init, pos_embed_resize

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
        tokens, grid = self.patch_embed(images)
        if self.pos_embed_resize == 'size' or tuple(grid) == tuple(self.patch_resolution):
            return super().forward(images)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        place = resize_by_scale_factor(
            self.pos_embed, self.patch_resolution, grid, self.num_extra_tokens
        )
        tokens = self.pre_norm(self.drop_after_pos(tokens + place))
        outputs = []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index == len(self.layers) - 1 and self.final_norm:
                tokens = self.ln1(tokens)
            if index in self.out_indices:
                outputs.append(self._format_output(tokens, grid))
        return tuple(outputs)


def resize_by_scale_factor(
    embedding: Tensor, source: tuple[int, int], target: tuple[int, int], num_extra_tokens: int = 1
) -> Tensor:
    """Resize a position embedding as DINO's public code: bicubic, by ``(n + 0.1) / n_0``.

    The tenth was meant against rounding; it also moves every sample's place.

    Args:
        embedding: (1, extra + H_0 W_0, d).
        source: H_0, W_0.
        target: H, W.
        num_extra_tokens: Leading tokens without place, which pass unchanged.

    Returns:
        (1, extra + H W, d).
    """
    extra, grid = embedding[:, :num_extra_tokens], embedding[:, num_extra_tokens:]
    factors = [(new + 0.1) / old for new, old in zip(target, source, strict=True)]
    image = grid.unflatten(1, source).permute(0, 3, 1, 2)
    resized = F.interpolate(
        image if image.dtype == torch.float64 else image.float(),
        scale_factor=factors,
        mode='bicubic',
        align_corners=False,
    )
    return torch.cat([extra, resized.to(embedding.dtype).flatten(2).transpose(1, 2)], dim=1)
