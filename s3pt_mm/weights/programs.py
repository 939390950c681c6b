"""A ViT as a program for other run times: ONNX and ``torch.export``, any image size."""

from __future__ import annotations

import copy
import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.common.files import replacing
from s3pt_mm.weights.any_vit import home_size, patch_size
from s3pt_mm.weights.timm_vit import TimmViT

if TYPE_CHECKING:
    from mmpretrain.models import VisionTransformer

TOLERANCE = 1e-4
LARGEST_SIDE = 1024
"""Patches along a side that a program takes at most."""
_NEEDED = {'.onnx': ('onnx', 'onnxscript', 'onnxruntime'), '.pt2': ()}
_CUBIC = -0.75  # torch's bicubic kernel


def _interpolation(count: int, old: int, step: Tensor) -> Tensor:
    """Bicubic interpolation of ``old`` samples to ``count`` as a matrix, (count, old).

    As ``F.interpolate`` without antialiasing, corners not aligned; ``step``, from sample to sample
    in units of the old ones, is one over its factor.
    """
    place = (torch.arange(count).float() + 0.5) * step - 0.5
    taps = place.floor()[:, None] + torch.arange(-1, 3).float()
    far = (place[:, None] - taps).abs()
    inner = ((_CUBIC + 2) * far - (_CUBIC + 3)) * far * far + 1
    outer = ((_CUBIC * far - 5 * _CUBIC) * far + 8 * _CUBIC) * far - 4 * _CUBIC
    weights = torch.where(far <= 1, inner, torch.where(far < 2, outer, torch.zeros_like(far)))
    # Beyond the border the last sample counts again.
    hits = taps.clamp(0, old - 1)[:, :, None] == torch.arange(old).float()
    return (weights[:, :, None] * hits).sum(1)


class Program(nn.Module):
    """mmpretrain's ViT without a step that depends on the image's size in Python.

    Position embeddings are resized by a product of matrices, at home size by the identity, so that
    one traced program serves all sizes.

    Args:
        vit: The network, ``out_type='raw'``.
        resize: 'size' or 'scale_factor', as ``S3PTVisionTransformer.pos_embed_resize``.
    """

    def __init__(self, vit: VisionTransformer, resize: str) -> None:
        super().__init__()
        self.vit: VisionTransformer = vit
        self.extra = {'size': 0.0, 'scale_factor': 0.1}[resize]

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w), normalised -> tokens (n, 1 + patches, d), the class token first."""
        vit = self.vit
        patches = vit.patch_embed.projection(images).permute(0, 2, 3, 1)
        home = vit.pos_embed[0, 1:].unflatten(0, vit.patch_resolution)
        counts = [torch.ones(count).sum() for count in patches.shape[1:3]]
        high, wide = ((n - old).abs() for n, old in zip(counts, vit.patch_resolution, strict=True))
        extra = self.extra * (high + wide).clamp(max=1)  # at home nothing is resized
        rows, columns = (
            _interpolation(count, old, old / (n + extra))
            for count, old, n in zip(patches.shape[1:3], vit.patch_resolution, counts, strict=True)
        )
        place = torch.einsum('rh,hwd->rwd', rows, home)
        tokens = patches + torch.einsum('cw,rwd->rcd', columns, place)
        first = (vit.cls_token + vit.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        tokens = torch.cat([first, tokens.flatten(1, 2)], dim=1)
        for layer in vit.layers:
            tokens = layer(tokens)
        return vit.ln1(tokens)


class _RotaryPlaces(nn.Module):
    """DINOv3's rotary positions from the sizes of the graph; timm's take them from Python."""

    def __init__(self, rope: Any) -> None:
        super().__init__()
        self.rope = rope

    def get_embed(self, shape: Sequence[int]) -> Tensor:
        """(rows, columns) -> (rows * columns, 2 d of a head), sines then cosines."""
        sides = ((torch.arange(n) + 0.5) / torch.ones(n).sum() * 2 - 1 for n in shape)
        grid = torch.stack(torch.meshgrid(*sides, indexing='ij'), dim=-1).flatten(0, 1)
        return torch.cat(self.rope._get_pos_embed_from_coords(grid), dim=-1)


class TimmProgram(nn.Module):
    """:class:`TimmViT` in the same way; timm's own resizing of positions can be traced."""

    def __init__(self, vit: TimmViT) -> None:
        super().__init__()
        self.model = copy.deepcopy(vit.model)
        if type(getattr(self.model, 'rope', None)).__name__ == 'RotaryEmbeddingDinoV3':
            self.model.rope = _RotaryPlaces(self.model.rope)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w), normalised -> tokens (n, extra + patches, d), as :class:`TimmViT`'s."""
        return self.model.forward_features(images)


def write_program(
    vit: VisionTransformer | TimmViT, out: Path, *, resize: str, sizes: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    """Write the program, load it back and hold it against the network; or write nothing.

    A program takes any number of images, whose sides are two patches or more.

    Args:
        vit: mmpretrain's ViT (or a class of its kind) or :class:`TimmViT`, ``out_type='raw'``, in
            eval mode, on the CPU.
        out: ``.onnx``, or ``.pt2`` of ``torch.export``.
        resize: See :class:`Program`; of timm's networks only 'size', which is their own way.
        sizes: (height, width) of the images that both must agree on.

    Returns:
        The largest difference of a token at each size.

    Raises:
        ConfigError: A library is missing, or timm's network cannot resize so.
        RuntimeError: A token differs by more than :data:`TOLERANCE`.
    """
    missing = [name for name in _NEEDED[out.suffix] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'{out.suffix} needs {", ".join(missing)}: pip install "s3pt_mm[export]"')
    program: nn.Module
    if not isinstance(vit, TimmViT):
        program = Program(vit, resize)
    elif resize == 'size':
        program = TimmProgram(vit)
    else:
        raise ConfigError(f"--resize {resize}: networks of timm resize positions in timm's way")
    patch = patch_size(vit)
    height, width = (
        patch * torch.export.Dim(name, min=2, max=LARGEST_SIDE) for name in ('rows', 'columns')
    )
    # Traced at a size of its own: not square, not the home's, more than one of everything.
    high, wide = home_size(vit)
    example = torch.zeros(2, 3, high + 2 * patch, wide + 3 * patch)
    with torch.no_grad():
        traced = torch.export.export(
            program.eval(),
            (example,),
            dynamic_shapes=({0: torch.export.Dim('images', min=1, max=4096), 2: height, 3: width},),
        )
    with replacing(out) as temporary:
        write = _write_onnx if out.suffix == '.onnx' else _write_torch
        compute = write(traced, example, temporary)
        differences = {}
        for size in sizes:
            images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                wanted = vit(images)[0]
            differences[size] = float((compute(images) - wanted).abs().max())
            if not differences[size] <= TOLERANCE:
                raise RuntimeError(
                    f'{out}: at {size[0]} x {size[1]} pixels a token differs from the network by '
                    f'{differences[size]:.2g}, more than {TOLERANCE}; nothing was written'
                )
    return differences


def _write_onnx(
    traced: torch.export.ExportedProgram, example: Tensor, path: Path
) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    program = torch.onnx.export(
        traced, (example,), dynamo=True, verbose=False,
        input_names=['images'], output_names=['tokens'],
    )  # fmt: skip
    assert program is not None  # dynamo=True gives one
    program.save(str(path))
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _write_torch(
    traced: torch.export.ExportedProgram, example: Tensor, path: Path
) -> Callable[[Tensor], Tensor]:
    stream = io.BytesIO()
    torch.export.save(traced, stream)
    path.write_bytes(stream.getvalue())
    again = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return lambda images: again(images).detach()
