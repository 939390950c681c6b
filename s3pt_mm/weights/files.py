"""Files of weights, read without running anything that they bring, and written whole or not at
all."""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3pt_mm.common.files import replacing
from s3pt_mm.hosts import compat


class UnsafeCheckpointError(RuntimeError):
    """A file names classes or functions that a file of weights has no business with."""


def load_checkpoint_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read ``.safetensors``, or anything that ``torch.save`` wrote, on the CPU.

    Accepted are tensors, plain containers, the data classes of OpenMMLab's own checkpoints
    (:func:`s3pt_mm.hosts.compat.trusted_globals`) and ``argparse.Namespace``, in which DINO and
    CrIBo keep their arguments. A pickle that asks for anything else is refused before that is
    imported.

    Args:
        path: the file.

    Returns:
        Its content; for safetensors, the tensors by name.

    Raises:
        FileNotFoundError: no such file.
        UnsafeCheckpointError: the file asks for a foreign class or function; the message names
            both.
        ValueError: the file is torn, or holds no mapping.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    if path.suffix == '.safetensors':
        return _load_safetensors(path)
    compat.apply()
    try:
        # argparse.Namespace has no __setstate__ and no __reduce__: torch fills its __dict__.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise _explain(path, error) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f'{path}: not a whole checkpoint ({type(error).__name__}: {str(error)[:200]}); '
            'fetch or copy it again'
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f'{path}: holds a {type(content).__name__}, not a mapping of weights')
    return dict(content)


def _explain(path: Path, error: pickle.UnpicklingError) -> UnsafeCheckpointError | ValueError:
    """Name the refused global; torch's own message would advise to switch the protection off."""
    text = str(error)
    found = re.search(r'(?:GLOBAL|global:?)\s+([\w.]+)', text)
    found = found or re.search(r'getattr\([^)]*\)', text)
    if found is None and 'nsupported' not in text and 'blocked' not in text:
        reason = text.split('WeightsUnpickler error:')[-1].strip()[:200]
        return ValueError(
            f'{path}: not a whole checkpoint of this kind ({reason}); fetch or copy it again'
        )
    name = found[found.lastindex or 0] if found else text.splitlines()[-1][:200]
    return UnsafeCheckpointError(
        f'{path}: refused, because loading it would use {name}, which is no part of a file of '
        f'weights. '
        'Nothing of it was run. If you trust its source, let its authors export the weights as '
        'safetensors or as a plain state dict.'
    )


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device='cpu')
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path}: not a whole safetensors file ({error})') from error


def write_weights(
    state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]
) -> None:
    """Write a state dict as ``.safetensors``, else as ``.pth``, through a temporary file.

    Args:
        state: tensors by name.
        path: the file; an existing one is replaced only by the complete new one.
        metadata: text beside the weights (``meta`` of a ``.pth``).
    """
    # A copy each: views of one storage would be stored whole (.pth) or refused (safetensors).
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        # Into an open file: so that a full disk is an OSError, whoever writes.
        if Path(path).suffix == '.safetensors':
            from safetensors.torch import save

            file.write(save(tensors, metadata={**metadata, 'format': 'pt'}))
        else:
            torch.save({'state_dict': tensors, 'meta': dict(metadata)}, file)
