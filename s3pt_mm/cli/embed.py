"""Class and patch tokens of any images, by the ViT of any checkpoint.

    s3pt-embed CHECKPOINT FOLDER --out features.parquet

OUT ends in .npy, .parquet or .safetensors. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

from s3pt_mm.cli.images_in import (
    add_arguments,
    find_images,
    image_size,
    load_network,
    read_image,
)
from s3pt_mm.common.checksums import content_of
from s3pt_mm.common.errors import DataError, exit_status
from s3pt_mm.common.files import replacing, write_bytes, write_json

FORMATS = ('.npy', '.parquet', '.safetensors')


@torch.no_grad()
def embed(
    model: nn.Module,
    paths: Sequence[Path],
    parts: Path,
    *,
    size: tuple[int, int],
    image_level: bool,
    batch_size: int,
    device: str,
    on_error: str,
) -> tuple[list[Path], dict[str, str]]:
    """Compute what is not there yet.

    Args:
        model: Images -> (tokens,), as :func:`s3pt_mm.weights.any_vit.load_tokens`, on ``device``.
        paths: Images.
        parts: Folder of the batches' files, this very run's.
        size: (height, width) that images are resized to.
        image_level: Keep the class token alone, at unit length.
        batch_size: Images a part.
        device: Where to compute.
        on_error: ``raise`` at an image that cannot be read, or ``skip`` it.

    Returns:
        One float16 file a batch: (b, 1 + patches, d), with ``image_level`` (b, d), b the images
        that can be read (no file where there is none); what is wrong with the others, by path.
    """
    files, left_out = [], {}
    for start in track(range(0, len(paths), batch_size), description='batches'):
        chunk = paths[start : start + batch_size]
        file, done = parts / f'{start:08d}.npy', parts / f'{start:08d}.json'
        if not done.is_file():
            batch, bad = [], {}
            for path in chunk:
                try:
                    batch.append(read_image(path, size))
                except DataError as error:
                    if on_error == 'raise':
                        raise
                    bad[str(path)] = str(error)
            if batch:
                (tokens,) = model(torch.stack(batch).to(device))
                if image_level:
                    tokens = nn.functional.normalize(tokens[:, 0].float(), dim=-1)
                else:  # without registers
                    tokens = torch.cat([tokens[:, :1], tokens[:, model.num_extra_tokens :]], dim=1)
                whole = io.BytesIO()  # to a file, np.save hides what the system says of a full disk
                np.save(whole, tokens.half().cpu().numpy())
                write_bytes(file, whole.getvalue(), tidy=False)
            write_json(done, bad)
        bad = json.loads(done.read_text())
        left_out |= bad
        files += [file] if len(bad) < len(chunk) else []
    return files, left_out


def write_features(
    out: Path, names: Sequence[str], files: Sequence[Path], grid: tuple[int, int]
) -> None:
    """Join the parts into one file, which appears when it is whole.

    ``.npy`` and ``.parquet`` are written part by part; ``.safetensors`` needs all in memory.
    """
    parts: Iterator[NDArray] = map(np.lib.format.open_memmap, files, repeat('r'))
    with replacing(out) as temporary:
        if out.suffix == '.npy':
            shape = (len(names), *np.lib.format.open_memmap(files[0], 'r').shape[1:])
            with open(temporary, 'wb') as stream:  # a map in memory ends a full disk's process
                header = np.lib.format.header_data_from_array_1_0(np.empty(0, np.float16))
                np.lib.format.write_array_header_1_0(stream, header | dict(shape=shape))
                for part in parts:
                    stream.write(part.tobytes())
        elif out.suffix == '.parquet':
            _write_parquet(temporary, names, parts, grid)
        else:
            from safetensors.numpy import save

            about = dict(paths=json.dumps(names), grid=json.dumps(grid))
            temporary.write_bytes(save(_split(np.concatenate(list(parts)), grid), about))
    if out.suffix == '.npy':
        write_json(out.with_suffix('.json'), dict(paths=list(names), grid=list(grid)))


def _split(tokens: NDArray, grid: tuple[int, int]) -> dict[str, NDArray]:
    if tokens.ndim == 2:
        return dict(class_token=tokens)
    patches = tokens[:, 1:].reshape(len(tokens), *grid, -1)
    return dict(
        class_token=np.ascontiguousarray(tokens[:, 0]), patch_tokens=np.ascontiguousarray(patches)
    )


def _write_parquet(
    path: Path, names: Sequence[str], parts: Iterator[NDArray], grid: tuple[int, int]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Of names that are not UTF-8 a table can hold readable escapes.
    names = [name.encode('utf-8', 'backslashreplace').decode() for name in names]
    writer, at = None, 0
    try:
        for part in parts:
            columns: dict[str, object] = dict(path=names[at : at + len(part)])
            for name, values in _split(part, grid).items():
                flat = values.reshape(len(values), -1)
                columns[name] = pa.FixedSizeListArray.from_arrays(
                    pa.array(flat.reshape(-1)), flat.shape[1]
                )
            table = pa.table(columns).replace_schema_metadata(dict(grid=json.dumps(grid)))
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            at += len(part)
    finally:
        if writer is not None:
            writer.close()


def run(args: argparse.Namespace) -> None:
    """What the arguments say.

    Raises:
        DataError: No images, a broken image, another ending than :data:`FORMATS`.
    """
    out, folder = Path(args.out), Path(args.folder)
    if out.suffix not in FORMATS:
        raise DataError(out, f'ends in {out.suffix!r}', f'Endings: {", ".join(FORMATS)}')
    model = load_network(args.checkpoint, args)
    size, patch = image_size(model, args.image_size)
    grid = tuple(side // patch for side in size)
    paths = find_images(folder)
    names = [path.relative_to(folder).as_posix() for path in paths]
    # Parts belong to this network, these images and these settings, or they are not found.
    told = vars(args) | dict(out=None, device=None, content=content_of(args.checkpoint))
    stamps = [
        (name, path.stat().st_mtime_ns if path.exists() else None)  # a link may lead nowhere
        for name, path in zip(names, paths, strict=True)
    ]
    digest = hashlib.sha256(repr((sorted(told.items()), stamps)).encode()).hexdigest()[:12]
    parts = out.with_name(f'.{out.name}.{digest}.parts')
    settings = dict(batch_size=args.batch_size, device=args.device, image_level=args.image_level)
    settings['on_error'] = args.on_error
    files, left_out = embed(model, paths, parts, size=size, **settings)
    for line in left_out.values():
        print(f'left out: {line}', file=sys.stderr)
    if not files:
        raise DataError(
            folder, f'none of its {len(paths)} images can be read', 'See the lines above'
        )
    names = [name for name, path in zip(names, paths, strict=True) if str(path) not in left_out]
    write_features(out, names, files, grid)
    shutil.rmtree(parts)
    what = 'class tokens' if args.image_level else f'class tokens and {grid[0]} x {grid[1]} patches'
    skipped = f'; {len(left_out)} left out' if left_out else ''
    print(f'{out}: {what} of {len(names)} images, {model.embed_dims} numbers each{skipped}')


def main(argv: Sequence[str] | None = None) -> int:
    """Embed; 0, or 1 after one line about what is wrong."""
    parser = argparse.ArgumentParser(prog='s3pt-embed', description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument('--out', required=True, help=f'file ending in {", ".join(FORMATS)}')
    parser.add_argument('--image-level', action='store_true', help='class token only, unit length')
    parser.add_argument(
        '--on-error', choices=('raise', 'skip'), default='raise', help='at an image that is torn'
    )
    args = parser.parse_args(argv)
    return exit_status(lambda: run(args), RuntimeError, ValueError)
