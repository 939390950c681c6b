"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON under a temporary name and rename it; NaN becomes null.

    Args:
        path: File; missing folders are made.
        content: What JSON can hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    partial.write_text(json.dumps(_plain(content), indent=1) + '\n', encoding='utf-8')
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
