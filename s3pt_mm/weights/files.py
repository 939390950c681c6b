"""Files of weights, written whole or not at all; :mod:`s3pt_mm.common.reading` reads them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from s3pt_mm.common.checksums import CONTENT_HASH, content_hash
from s3pt_mm.common.files import replacing


def write_weights(
    state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]
) -> None:
    """Write a state dict as ``.safetensors``, else as ``.pth``, through a temporary file.

    Args:
        state: tensors by name.
        path: the file; an existing one is replaced only by the complete new one. A
            ``.safetensors`` holds a hash of its content, which reading compares.
        metadata: text beside the weights (``meta`` of a ``.pth``).
    """
    # A copy each: views of one storage would be stored whole (.pth) or refused (safetensors).
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        # Into an open file: so that a full disk is an OSError, whoever writes.
        if Path(path).suffix == '.safetensors':
            from safetensors.torch import save

            texts = {**metadata, 'format': 'pt'}
            digest, _ = content_hash(io.BytesIO(save(tensors, metadata=texts)))
            file.write(save(tensors, metadata={**texts, CONTENT_HASH: digest}))
        else:
            torch.save({'state_dict': tensors, 'meta': dict(metadata)}, file)
