"""The ViT of any checkpoint in another library's own form.

    s3pt-export CHECKPOINT --to huggingface --out my-vit

OUT is a folder for huggingface, an .onnx or .pt2 file for onnx and torch-export, which take images
of any size, else a .safetensors file, in timm's or this package's names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from s3pt_mm.cli.images_in import add_network_arguments
from s3pt_mm.common.errors import ConfigError, exit_status
from s3pt_mm.common.files import write_json, write_text
from s3pt_mm.data.labelled_images import IMAGENET_MEAN, IMAGENET_STD
from s3pt_mm.weights.any_vit import home_size, load_tokens, patch_size, told_heads
from s3pt_mm.weights.convert import convert_file
from s3pt_mm.weights.files import write_weights
from s3pt_mm.weights.hugging_face import to_hugging_face
from s3pt_mm.weights.public import weights_file
from s3pt_mm.weights.timm_vit import TimmViT

LAYOUTS = dict(huggingface='huggingface', timm='timm', safetensors='s3pt_mm')
PROGRAMS = {'onnx': '.onnx', 'torch-export': '.pt2'}

CARD = """---
library_name: transformers
pipeline_tag: image-feature-extraction
---

# {name}

A ViT (width {embed_dims}, {num_layers} layers, patch {patch_size}), exported by s3pt_mm from
`{source}`.

```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained('{name}')
model = AutoModel.from_pretrained('{name}'{load})
inputs = processor(Image.open('frame.jpg').convert('RGB'), return_tensors='pt')
with torch.no_grad():
    tokens = model(**inputs{call}).last_hidden_state
```

`tokens` is (1, {extra} + patches, {embed_dims}), the class token first. Its data,
licence and figures are not known to the exporter.
"""

#: Of the card, where the network is transformers' ``ViTModel``.
VIT = dict(extra=1, load=', add_pooling_layer=False', call=', interpolate_pos_encoding=True')


def preprocessor_config(size: tuple[int, int]) -> dict[str, object]:
    """``preprocessor_config.json``: bicubic to (height, width), ImageNet's statistics."""
    return dict(
        image_processor_type='ViTImageProcessor',
        do_resize=True,
        size=dict(height=size[0], width=size[1]),
        resample=3,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[value / 255 for value in IMAGENET_MEAN],
        image_std=[value / 255 for value in IMAGENET_STD],
    )


def run(args: argparse.Namespace) -> None:
    """What the arguments say.

    Raises:
        ConfigError: OUT has another form than ``--to`` needs, or no multiple of the patch.
    """
    out, folder = Path(args.out), args.to == 'huggingface'
    ending = PROGRAMS.get(args.to, '.safetensors')
    if (out.suffix == ending) == folder:
        needed = 'a folder' if folder else f'a file ending in {ending}'
        raise ConfigError(f'--out {out}: --to {args.to} writes {needed}')
    heads = args.num_heads or told_heads(args.checkpoint)
    if args.to in PROGRAMS:
        return write(args, out, heads)
    size, card = write_weights_of(args, out, heads)
    if folder:
        image = tuple(args.image_size or (size['img_size'],) * 2)
        if any(side < 1 or side % size['patch_size'] for side in image):
            raise ConfigError(f'--image-size {image}: no multiples of patch {size["patch_size"]}')
        write_json(out / 'preprocessor_config.json', preprocessor_config(image))
        texts = dict(name=out.name, source=Path(args.checkpoint).name)
        write_text(out / 'README.md', CARD.format(**size, **card, **texts))
    print(f'{out}: {", ".join(f"{name} {value}" for name, value in size.items())}')


def write_weights_of(
    args: argparse.Namespace, out: Path, heads: int | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """``--to huggingface``, ``timm`` and ``safetensors``; sizes of the network, words of its card.

    Raises:
        LayoutError: No ViT, or none that transformers has.
    """
    options: dict[str, Any] = dict(network=args.network, num_heads=heads)
    model: Any = load_tokens(args.checkpoint, **options, timm=args.timm)
    if not isinstance(model, TimmViT):
        options['num_heads'] = model.layers[0].attn.num_heads  # a width of 128 has 4
        source = weights_file(args.checkpoint)
        return convert_file(source, out, layout_out=LAYOUTS[args.to], **options), VIT
    size = dict(embed_dims=model.embed_dims, num_layers=len(model.model.blocks))
    size |= dict(patch_size=patch_size(model), img_size=home_size(model)[0])
    card = dict(extra=model.num_extra_tokens, load='', call='')
    state = model.state_dict() if args.to == 'safetensors' else model.model.state_dict()
    if args.to == 'huggingface':
        state, config = to_hugging_face(model, args.checkpoint)
        write_json(out / 'config.json', config)
    metadata = {'source': Path(args.checkpoint).name, 'layout': args.to}
    write_weights(state, out / 'model.safetensors' if args.to == 'huggingface' else out, metadata)
    return size, card


def write(args: argparse.Namespace, out: Path, heads: int | None) -> None:
    """``--to onnx`` and ``torch-export``, checked at the home size and at two others.

    Raises:
        ConfigError: ``--image-size`` is no multiple of the patch, or a library is missing.
        LayoutError: No ViT that is known.
        RuntimeError: The program does not compute what the network does.
    """
    from s3pt_mm.method.backbone import PretrainVisionTransformer
    from s3pt_mm.weights.programs import write_program

    model: Any = load_tokens(
        args.checkpoint,
        network=args.network,
        num_heads=heads,
        timm=args.timm,
        kind=partial(PretrainVisionTransformer, pos_embed_resize=args.resize),
    )
    patch, home = patch_size(model), home_size(model)
    other = tuple(args.image_size or (home[0] - home[0] % (2 * patch) + patch, 2 * home[1]))
    if any(side < 2 * patch or side % patch for side in other):
        raise ConfigError(f'--image-size {other}: no multiples of patch {patch}, two or more')
    sizes = [home, other, (2 * patch, 5 * patch)]
    for (height, width), difference in write_program(
        model, out, resize=args.resize, sizes=sizes
    ).items():
        print(f'{height} x {width} pixels: tokens differ from the network by {difference:.1e}')
    extra = model.num_extra_tokens
    shape = f'(n, {extra} + patches, {model.embed_dims})'
    print(f'{out}: images (n, 3, h, w), normalised, to tokens {shape}')


def main(argv: Sequence[str] | None = None) -> int:
    """Export; 0, or 1 after one line about what is wrong."""
    parser = argparse.ArgumentParser(prog='s3pt-export', description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', help='of this package, DINO, timm, Hugging Face, ...')
    parser.add_argument('--to', required=True, choices=[*LAYOUTS, *PROGRAMS])
    parser.add_argument(
        '--out', required=True, help='folder (huggingface), .safetensors, .onnx or .pt2 file'
    )
    parser.add_argument(
        '--image-size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='that the image processor resizes to, and a program is checked at; default: the '
        "position embedding's own, for programs a rectangle",
    )
    parser.add_argument(
        '--resize',
        choices=('size', 'scale_factor'),
        default='size',
        help="of a program's position embedding, as S3PTVisionTransformer's pos_embed_resize",
    )
    add_network_arguments(parser)
    args = parser.parse_args(argv)
    return exit_status(lambda: run(args), RuntimeError, ValueError)
