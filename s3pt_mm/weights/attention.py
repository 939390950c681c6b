"""Where the class token looks: attention of a ViT's last block, whoever wrote the ViT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _LastAttention(TorchFunctionMode):
    """Keeps queries and keys of the last attention computed, positions and norms in them."""

    def __init__(self) -> None:
        self.query = self.key = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            self.query, self.key = args[:2]
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def tokens_and_attention(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Patch tokens, and the class token's attention to them.

    Args:
        model: See :func:`s3pt_mm.weights.any_vit.load_tokens`.
        images: (n, 3, h, w), normalised.

    Returns:
        (n, N, d) float32 tokens of the patches, and (n, heads, N) float32 attention; what a head's
        N shares lack of 1 goes to the class token and registers.

    Raises:
        ValueError: The network does not attend through torch's own function.
    """
    with _LastAttention() as seen:
        (tokens,) = model(images)
    if seen.query is None:
        raise ValueError(f'{type(model).__name__} computes its attention in a way of its own')
    query, key = seen.query[:, :, :1].float(), seen.key.float()
    shares = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
    extra = model.num_extra_tokens
    return tokens[:, extra:].float(), shares[:, :, 0, extra:]
