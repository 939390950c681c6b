"""What a figure of a probe must beat: networks that learned nothing, and no network at all.

Place and colour alone segment a street to a good part, and an untrained ViT passes both on. Only a
gain over the *best* of these says that something was learned.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3pt_mm.probes.patches import FeatureMap

if TYPE_CHECKING:
    from mmpretrain.models import VisionTransformer

_WAVES = 256  # random Fourier features of the controls without a network
_PLACE_WIDTH, _COLOUR_WIDTH = 0.15, 0.5  # of the kernel: share of the view, deviations of ImageNet


CONSTANT = ('random', 'place', 'colour + place')
"""Controls that a network's training does not change: they depend on its shape alone."""


def feature_map_of(backbone: VisionTransformer) -> FeatureMap:
    """A function (B, 3, h, w) -> (B, d, rows, columns) of mmpretrain's ViT, whatever its output."""
    patch = backbone.patch_embed.projection.kernel_size

    def feature_map(images: Tensor) -> Tensor:
        output = backbone(images)[-1]
        if backbone.out_type == 'featmap':
            return output
        tokens = output[:, backbone.num_extra_tokens :]
        rows, columns = (side // step for side, step in zip(images.shape[-2:], patch, strict=True))
        return tokens.transpose(1, 2).unflatten(2, (rows, columns))

    return feature_map


def position_scale(backbone: VisionTransformer) -> float:
    """Root mean square of the position embedding over the patches, (1, extra + N, d)."""
    return float(backbone.pos_embed[:, backbone.num_extra_tokens :].detach().square().mean().sqrt())


@torch.no_grad()
def untrained(
    backbone: VisionTransformer, *, seed: int, scale_of_position: float | None = None
) -> VisionTransformer:
    """The same ViT at fresh weights: truncated normals of 0.02, as DINO and CrIBo start.

    Args:
        backbone: mmpretrain's ViT; stays as it is.
        seed: Of the draw; the global generator is left alone.
        scale_of_position: Root mean square that the position embedding is brought to; None leaves
            it at 0.02.
    """
    fresh = copy.deepcopy(backbone)
    fresh.eval()  # mmpretrain's returns nothing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in fresh.modules():
            if isinstance(module, nn.Linear):
                _draw(module.weight)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):  # filters or stem, as the framework draws them
                weight = torch.empty(module.weight.shape)
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
                module.weight.copy_(weight)
                if module.bias is not None:
                    bound = module.weight[0].numel() ** -0.5
                    module.bias.copy_(torch.empty(module.bias.shape).uniform_(-bound, bound))
        for name in ('pos_embed', 'cls_token'):
            parameter = getattr(fresh, name, None)
            if parameter is not None:
                _draw(parameter)
    if scale_of_position is not None:
        fresh.pos_embed.mul_(scale_of_position / position_scale(fresh))
    return fresh


def _draw(parameter: Tensor) -> None:
    # On the CPU, so that every device has the same weights.
    values = torch.empty(parameter.shape)
    parameter.copy_(nn.init.trunc_normal_(values, std=0.02))


def place(patch: int) -> FeatureMap:
    """Features that know where a patch lies in the view, and nothing else."""
    return _kernel_features(patch, with_colour=False)


def colour_and_place(patch: int) -> FeatureMap:
    """Features that know a patch's mean colour and its place."""
    return _kernel_features(patch, with_colour=True)


def _kernel_features(patch: int, *, with_colour: bool) -> FeatureMap:
    """Random Fourier features: their cosine falls with distance like a Gaussian kernel."""
    generator = torch.Generator().manual_seed(0)
    widths = torch.tensor([_PLACE_WIDTH] * 2 + [_COLOUR_WIDTH] * 3 * with_colour)
    waves = torch.randn(_WAVES, len(widths), generator=generator) / widths
    phases = 2 * math.pi * torch.rand(_WAVES, generator=generator)

    def feature_map(images: Tensor) -> Tensor:
        colour = F.avg_pool2d(images, patch)
        rows, columns = colour.shape[-2:]
        axes = [(torch.arange(n, device=images.device) + 0.5) / n for n in (rows, columns)]
        grid = torch.stack(torch.meshgrid(*axes, indexing='ij')).expand(len(images), -1, -1, -1)
        known = torch.cat([grid, colour], 1) if with_colour else grid
        values = torch.einsum('bcij,wc->bwij', known, waves.to(images.device))
        return torch.cos(values + phases.to(images.device)[:, None, None])

    return feature_map


def control_maps(backbone: VisionTransformer, *, seed: int = 0) -> dict[str, FeatureMap]:
    """The four controls of a trained ViT, by the name that tables print.

    Args:
        backbone: The trained network; its shape and the scale of its position embedding count.
        seed: Of the untrained weights.
    """
    patch = int(backbone.patch_embed.projection.kernel_size[0])
    same = untrained(backbone, seed=seed, scale_of_position=position_scale(backbone))
    return {
        'random': feature_map_of(untrained(backbone, seed=seed)),
        'place': place(patch),
        'colour + place': colour_and_place(patch),
        'untrained, same position scale': feature_map_of(same),
    }
