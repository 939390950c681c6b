"""A ViT whose patches come from a stack of convolutions, for pre-training, probes and tools."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

STEMS = ('patches', 'convolutions')


class ConvStem(nn.Sequential):
    """Patches by a stack of small convolutions (Xiao et al., arXiv 2106.14881) in place of filters.

    One convolution of 3 x 3 and stride 2 for each halving, each with group norm and GELU and as
    wide again as the one before, then one of 1 x 1. Group norm, unlike the paper's batch norm,
    leaves nothing for teachers and ranks to agree on.

    Args:
        in_channels: Of the images.
        embed_dims: d, the last width; a multiple of half the patch.
        patch: Pixels of a patch's side, a power of two.

    Raises:
        ValueError: ``patch`` or ``embed_dims`` does not fit.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch: int) -> None:
        halvings = patch.bit_length() - 1
        if patch < 2 or patch != 2**halvings or embed_dims % (patch // 2):
            raise ValueError(
                f'A stem of convolutions halves: patch_size is {patch} (a power of two), '
                f'embed_dims {embed_dims} (a multiple of half of it).'
            )
        widths = [in_channels, *(embed_dims >> left for left in reversed(range(halvings)))]
        layers: list[nn.Module] = []
        for narrow, wide in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(narrow, wide, 3, 2, 1), nn.GroupNorm(1, wide), nn.GELU()]
        super().__init__(*layers, nn.Conv2d(embed_dims, embed_dims, 1))
        # What a convolution with one filter a patch says of itself.
        self.kernel_size = self.stride = (patch, patch)
        self.padding = (0, 0)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, d, rows, columns); what fills no patch is cut off, as by filters."""
        height, width = (side - side % self.stride[0] for side in images.shape[2:])
        return super().forward(images[..., :height, :width])


class StemMixin:
    """Gives the ``VisionTransformer`` that it stands before in the bases a choice of stem.

    Args:
        *args: Of the ViT.
        stem: 'patches', one filter a patch as in every published figure, or 'convolutions', a
            :class:`ConvStem`. Choice of this package for runs of hundreds to thousands of steps:
            the same ViT learns from labels about twice as much in 480 (docs/lab_notes.md). No
            other library has a place for such weights.
        **kwargs: Of the ViT.

    Raises:
        ValueError: For another ``stem``, or sizes that one of convolutions cannot have.
    """

    embed_dims: int
    patch_embed: Any

    def __init__(self, *args: Any, stem: str = 'patches', **kwargs: Any) -> None:
        if stem not in STEMS:
            raise ValueError(f"stem must be 'patches' or 'convolutions', got {stem!r}")
        super().__init__(*args, **kwargs)
        if stem == 'convolutions':
            filters = self.patch_embed.projection
            self.patch_embed.projection = ConvStem(
                filters.in_channels, self.embed_dims, filters.kernel_size[0]
            )
