"""Models as runners hold them, and the one way to fill one with the weights of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from s3pt_mm.common.errors import ConfigError
from s3pt_mm.common.reading import read_checkpoint

_SHOWN = 8


class CheckpointMismatchError(ConfigError):
    """Weights that are not exactly those that a model needs."""


def unwrap(model: Any) -> Any:
    """The model itself, with or without a DDP wrapper around it."""
    return model.module if is_model_wrapper(model) else model


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A loaded checkpoint's weights by name, without the ``module.`` of a DDP wrapper."""
    state = checkpoint.get('state_dict', checkpoint)
    return {name.removeprefix('module.'): value for name, value in state.items()}


def differences(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """What keeps weights from a model: names of one side alone, then shapes; a phrase each.

    A ``pos_embed`` of another length is no difference: ViTs resize it while loading.

    Args:
        own: The model's state dict.
        theirs: The file's.
    """
    found = [f'{name} is absent in the file' for name in own if name not in theirs]
    found += [f'{name} is unknown to the model' for name in theirs if name not in own]
    for name, value in own.items():
        here = tuple(value.shape)
        there = tuple(theirs[name].shape) if name in theirs else here
        if here != there and not (name.endswith('pos_embed') and here[-1:] == there[-1:]):
            found.append(f'{name} is {there} in the file and {here} in the model')
    return found


def shortened(phrases: list[str]) -> str:
    """The first of many."""
    more = len(phrases) - _SHOWN
    return '; '.join(phrases[:_SHOWN]) + (f' and {more} more' if more > 0 else '')


def read_state_dict(checkpoint: str) -> Mapping[str, Any]:
    """The ``state_dict`` (or ``model``) entry of a file or address, or else its whole content.

    Raises:
        FileNotFoundError, DataError: See :func:`~s3pt_mm.common.reading.read_checkpoint`.
    """
    content = read_checkpoint(checkpoint)
    for key in ('state_dict', 'model'):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return content


def load_strictly(
    module: nn.Module, checkpoint: str, prefix: str | None = None, *, remedy: str = ''
) -> None:
    """Fill a module from the part of a checkpoint under a prefix; every name and shape has to fit.

    mmengine's ``Pretrained`` initialiser warns about names that do not fit and goes on: of DINO's
    own file 12 of 30 tensors loaded and 18 stayed random.

    Args:
        module: The module to fill.
        checkpoint: Path or address.
        prefix: Which part of the checkpoint, e.g. ``teacher.backbone.``; None or '' takes all of
            it.
        remedy: Sentences that end each message.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointMismatchError: Nothing under the prefix, names or shapes that do not fit, or
            numbers that are not finite; the message lists them.
    """
    try:
        content = read_state_dict(checkpoint)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}. {remedy}') from None
    prefix = prefix or ''
    if prefix and not prefix.endswith('.'):
        prefix += '.'
    state = {
        name[len(prefix) :]: value
        for name, value in content.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }
    if not state:
        parts = sorted({'.'.join(str(name).split('.')[:2]) + '.' for name in content})
        raise CheckpointMismatchError(
            f'{checkpoint} has no weight under the prefix {prefix!r}, but under '
            f'{", ".join(parts[:_SHOWN]) or "nothing"}. {remedy}'
        )
    found = differences(module.state_dict(), state)
    found += [
        f'{name} is not finite'
        for name, value in state.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if found:
        raise CheckpointMismatchError(
            f'{checkpoint}, prefix {prefix!r}, does not fit {type(module).__name__}: '
            f'{shortened(found)}. {remedy}'
        )
    module.load_state_dict(state, strict=True)
