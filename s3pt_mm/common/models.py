"""Models as runners hold them."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper


def unwrap(model: Any) -> Any:
    """The model itself, with or without a DDP wrapper around it."""
    return model.module if is_model_wrapper(model) else model
