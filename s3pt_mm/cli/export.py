"""The ViT of any checkpoint in another library's own form.

    s3pt-export CHECKPOINT --to huggingface --out my-vit

OUT is a folder for huggingface, else a .safetensors file, in timm's or this package's names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from s3pt_mm.common.errors import ConfigError, DataError, explain
from s3pt_mm.common.files import write_json, write_text
from s3pt_mm.data.labelled_images import IMAGENET_MEAN, IMAGENET_STD
from s3pt_mm.weights.convert import convert_file

LAYOUTS = dict(huggingface='huggingface', timm='timm', safetensors='s3pt_mm')

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
model = AutoModel.from_pretrained('{name}', add_pooling_layer=False)
inputs = processor(Image.open('frame.jpg').convert('RGB'), return_tensors='pt')
with torch.no_grad():
    tokens = model(**inputs, interpolate_pos_encoding=True).last_hidden_state
```

`tokens` is (1, 1 + patches, {embed_dims}), the class token first. Its data,
licence and figures are not known to the exporter.
"""


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
    if (out.suffix == '.safetensors') == folder:
        needed = 'a folder' if folder else 'a file ending in .safetensors'
        raise ConfigError(f'--out {out}: --to {args.to} writes {needed}')
    size = convert_file(
        args.checkpoint,
        out,
        layout_out=LAYOUTS[args.to],
        network=args.network,
        num_heads=args.num_heads,
    )
    if folder:
        image = tuple(args.image_size or (size['img_size'],) * 2)
        if any(side < 1 or side % size['patch_size'] for side in image):
            raise ConfigError(f'--image-size {image}: no multiples of patch {size["patch_size"]}')
        write_json(out / 'preprocessor_config.json', preprocessor_config(image))
        card = CARD.format(name=out.name, source=Path(args.checkpoint).name, **size)
        write_text(out / 'README.md', card)
    print(f'{out}: {", ".join(f"{name} {value}" for name, value in size.items())}')


def main(argv: Sequence[str] | None = None) -> int:
    """Export; 0, or 1 after one line about what is wrong."""
    parser = argparse.ArgumentParser(prog='s3pt-export', description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', help='of this package, DINO, timm, Hugging Face, ...')
    parser.add_argument('--to', required=True, choices=LAYOUTS)
    parser.add_argument('--out', required=True, help='folder (huggingface) or .safetensors file')
    parser.add_argument(
        '--image-size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="that the image processor resizes to; default: the position embedding's own",
    )
    parser.add_argument('--network', choices=('teacher', 'student'), default='teacher')
    parser.add_argument('--num-heads', type=int, help='attention heads; default width / 64')
    try:
        run(parser.parse_args(argv))
    except (DataError, ValueError, OSError) as error:
        print(f'error: {" ".join(explain(error).split())}', file=sys.stderr)
        return 1
    return 0
