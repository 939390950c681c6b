"""The one reader of checkpoints: whatever the route in, nothing that a file brings is ever run.

Every door leads here: ``init_cfg``, ``load_from``, ``--resume``, ``--init``, dense k-NN, sweeps,
conversion and testing; :mod:`s3pt_mm.hosts.safe_files` puts it in place of mmengine's loaders.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from s3pt_mm.common.checksums import verify, verify_open
from s3pt_mm.common.downloads import fetch, is_address
from s3pt_mm.common.errors import DataError
from s3pt_mm.common.pickles import CONSTRUCTORS, PlainArray

AGAIN = 'Copy or download it again from its source'


class UnsafeCheckpointError(DataError):
    """A file names classes or functions that a file of weights has no business with."""


def read_checkpoint(
    source: str | os.PathLike[str] | IO[bytes], map_location: Any = 'cpu'
) -> dict[str, Any]:
    """Read ``.safetensors``, or anything that ``torch.save`` wrote.

    Accepted are tensors, plain containers, NumPy arrays of plain numbers and text, mmengine's
    ``HistoryBuffer`` (the log of a run) and ``argparse.Namespace`` (in which DINO and CrIBo keep
    their arguments). A file that asks for anything else is refused before that is imported. The
    texts of configs that mmengine stores are left out, because mmengine would run them.

    Args:
        source: a path, an http(s) address, or an open file. A checksum file beside it
            (``.sha256``) is held against it.
        map_location: as ``torch.load``'s.

    Returns:
        Its content; for safetensors, the tensors by name.

    Raises:
        FileNotFoundError: no such file.
        UnsafeCheckpointError: the file asks for a foreign class or function; the message names
            both.
        DataError: the file is torn, altered, or holds no mapping.
    """
    if not isinstance(source, (str, os.PathLike)):
        name = str(getattr(source, 'name', 'checkpoint'))
        verify_open(source, name)
        return _read_torch(source, name, map_location)
    path = fetch(str(source)) if is_address(source) else Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    verify(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path, map_location)
    return _read_torch(path, str(source), map_location)


def _read_torch(file: Path | IO[bytes], name: str, map_location: Any) -> dict[str, Any]:
    import torch

    # For good: torch's context manager would take away what was allowed before it, too.
    torch.serialization.add_safe_globals([*trusted_globals(), argparse.Namespace])
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _explain(name, str(error)) from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        if 'TorchScript' in str(error):
            raise _refusal(name, 'a TorchScript program') from None
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        # Without torch's advice on how to switch the protection off.
        reason = str(error).split('weights_only')[0].splitlines()[:1]
        raise DataError(
            name, f'not a whole checkpoint ({type(error).__name__}: {"".join(reason)[:200]})', AGAIN
        ) from None
    if not isinstance(content, Mapping):
        raise DataError(
            name,
            f'holds a {type(content).__name__}, not a mapping of weights',
            'Save it as a dict of tensors by name',
        )
    return _without_programs(dict(content))


def _explain(name: str, text: str) -> DataError:
    """Name the refused global; torch's own message would advise to switch the protection off."""
    found = re.search(r'(?:GLOBAL|global:?)\s+([\w.]+)', text)
    found = found or re.search(r'(?:reduce for unrecognized function|getattr|module) ?.*', text)
    if found is None and not any(word in text for word in ('nsupported', 'blocked', 'plain')):
        reason = text.split('WeightsUnpickler error:')[-1].strip()[:200]
        return DataError(name, f'not a whole checkpoint of this kind ({reason})', AGAIN)
    last = text.split('WeightsUnpickler error:')[-1].strip().splitlines()[:1]
    return _refusal(name, (found[found.lastindex or 0] if found else ''.join(last))[:200])


def _refusal(name: str, what: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        name,
        f'refused, because loading it would use {what}, which is no part of a file of weights. '
        'Nothing of it was run',
        'If you trust its source, let its authors export the weights as safetensors or as a plain '
        'state dict',
    )


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device=map_location if isinstance(map_location, str) else 'cpu')
    except (SafetensorError, OSError) as error:
        raise DataError(path, f'not a whole safetensors file ({error})', AGAIN) from error


def _without_programs(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out the configs' texts, which mmengine's resuming and inferencers run as Python."""
    hub = content.get('message_hub')
    for texts in (content.get('meta'), hub.get('runtime_info') if isinstance(hub, dict) else None):
        if isinstance(texts, dict):
            texts.pop('config', None)
            texts.pop('cfg', None)
    return content


def trusted_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What OpenMMLab's own checkpoints name and what only carries data.

    Returns:
        mmengine's ``HistoryBuffer`` (the log of a run), stand-ins for NumPy's constructors (random
        states, log values) and for ``getattr``. None of them runs code that a file brings.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    plain_history_buffers()
    return [
        HistoryBuffer,
        PlainArray,
        *((function, name) for name, function in CONSTRUCTORS.items()),
        *((_history_method, f'{module}.getattr') for module in ('builtins', '__builtin__')),
    ]


def _history_method(owner: object, name: object) -> str:
    """What ``getattr`` means inside a checkpoint: the name of a HistoryBuffer method, no more.

    Files of an unpatched mmengine hold ``getattr(HistoryBuffer, 'mean')``. The real ``getattr``
    would be a way to reach any code, so this stands in for it; :func:`plain_history_buffers`
    throws the result away.

    Raises:
        pickle.UnpicklingError: the file asks for anything else.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return str(name)
    raise pickle.UnpicklingError(
        f'Unsupported use of getattr({owner!r}, {name!r}) in a checkpoint: only the '
        "statistics of mmengine's HistoryBuffer are accepted"
    )


def plain_history_buffers() -> None:
    """Write and read mmengine's ``HistoryBuffer`` as numbers alone, without its functions."""
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    numbers = ('max_length', '_log_history', '_count_history')

    def getstate(self: HistoryBuffer) -> dict[str, object]:
        """Numbers only: the functions belong to the class and are there after loading."""
        return {key: self.__dict__[key] for key in numbers}

    def setstate(self: HistoryBuffer, state: dict[str, Any]) -> None:
        """Take the numbers and ignore functions that a file brings along."""
        self._set_default_statistics()
        self.max_length = int(state['max_length'])
        for key in numbers[1:]:
            setattr(self, key, np.array(state[key]))

    HistoryBuffer.__getstate__ = getstate
    HistoryBuffer.__setstate__ = setstate
